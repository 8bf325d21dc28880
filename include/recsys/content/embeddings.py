"""Embedding sets: vectors of all products with the model that made them, swapped as one.

``data/embeddings/<set_id>/`` is a bundle (`recsys.storage.bundle`), and ``data/embeddings/current``
a link to one of them; both belong to the store. A set of ``catalog-static`` is read, queried and
searched with NumPy and ``tokenizers`` alone."""

import json
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from recsys.arrays import BoolArray, Float32Array
from recsys.content import CATALOG_STATIC, ModelConfig
from recsys.content.static_encoder import StaticEncoder
from recsys.errors import InputError
from recsys.retention import Retention
from recsys.settings import Settings
from recsys.storage import DamagedError, open_store
from recsys.storage.bundle import MANIFEST, Bundle
from recsys.storage.store import bundle_retention, open_current
from recsys.text import normalise

if TYPE_CHECKING:
    from recsys.content.library_models import LibraryEncoder

CURRENT = "current"
SETS_KEY = "data/embeddings"
POINTER_KEY = f"{SETS_KEY}/{CURRENT}"
IDS_FILE = "product_ids.json"
HASHES_FILE = "text_hashes.json"
VECTORS_FILE = "vectors.npy"
MODEL_FOLDER = "model"

_NEEDED = {"model", "model_settings", "recipe", "boilerplate", "since_fit", "revision"}


class EmbeddingError(InputError):
    """An embedding set is damaged or of a layout this code does not know."""


class EmbeddingSet(Bundle):
    """One immutable set, checked against its own hashes and pinned.

    `vectors` are ``(products, d)`` float32 of length one, memory-mapped, in the order of
    `product_ids`; zeros for a product without text. The `manifest` says what made them, see
    ``docs/embeddings.md``. Raises `EmbeddingError` if a file is not what it describes, or the parts
    do not fit each other, and `FileNotFoundError` if there is no such folder."""

    error = EmbeddingError

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        if missing := _NEEDED - self.manifest.keys():
            raise EmbeddingError(f"{folder / MANIFEST}: lacks {', '.join(sorted(missing))}")
        self.verify()
        self.product_ids: list[str] = json.loads((folder / IDS_FILE).read_text(encoding="utf-8"))
        vectors = np.load(folder / VECTORS_FILE, mmap_mode="r", allow_pickle=False)
        count = len(self.product_ids)
        if vectors.dtype != np.float32 or vectors.ndim != 2 or len(vectors) != count:
            raise EmbeddingError(
                f"{folder / VECTORS_FILE}: expected float32 vectors of {count} products, "
                f"found {vectors.dtype} of shape {vectors.shape}"
            )
        self.vectors: Float32Array = vectors

    @property
    def set_id(self) -> str:
        """Name of the set's folder."""
        return self.path.name

    @property
    def is_static(self) -> bool:
        """Queries can be encoded without torch."""
        return bool(self.manifest["model"] == CATALOG_STATIC)

    def vectors_of(self, product_ids: Iterable[str], missing: float = 0.0) -> Float32Array:
        """``(product_ids, d)`` vectors of these products, rows of `missing` for unknown ones."""
        row_of = {product: row for row, product in enumerate(self.product_ids)}
        rows = np.array([row_of.get(product, -1) for product in product_ids], dtype=np.int64)
        vectors = np.full((len(rows), self.vectors.shape[1]), missing, dtype=np.float32)
        vectors[rows >= 0] = self.vectors[rows[rows >= 0]]
        return vectors

    def text_hashes(self) -> list[str]:
        """Hash of the text behind each vector, ``""`` where a product had none."""
        return list(json.loads((self.path / HASHES_FILE).read_text(encoding="utf-8")))

    def encode_query(self, text: str) -> Float32Array:
        """``(d,)`` unit vector of a query in the space of `vectors`; zeros where most is unknown.
        Of other models than catalog-static this loads torch and the model, once."""
        query = normalise(text)
        if self.is_static:
            encoder = self._static_encoder
            vector: Float32Array = encoder.encode([query])[0]
            return vector if encoder.knows(query) else np.zeros_like(vector)
        return self._library_encoder.encode_query(query)

    def search(self, text: str, k: int) -> list[tuple[str, float]]:
        """The `k` products nearest to a query, best first, as (product id, cosine)."""
        return self.nearest(self.encode_query(text), k)

    def nearest(self, vector: Float32Array, k: int) -> list[tuple[str, float]]:
        """The `k` products nearest to a vector, best first, as (product id, cosine). Products
        without text are left out, and a vector of zeros has no neighbours."""
        k = min(k, int(self._has_text.sum()))
        if k < 1 or not vector.any():
            return []
        every = np.where(self._has_text, self.vectors @ vector, -np.inf)
        rows = np.argpartition(-every, k - 1)[:k]
        scores = every[rows]
        order = np.lexsort((rows, -scores))
        ids = (self.product_ids[row] for row in rows[order])
        return list(zip(ids, scores[order].tolist(), strict=True))

    @cached_property
    def _has_text(self) -> BoolArray:
        return np.asarray(self.vectors.any(axis=1), dtype=np.bool_)

    @cached_property
    def _static_encoder(self) -> StaticEncoder:
        return StaticEncoder.load(self.path / MODEL_FOLDER)

    @cached_property
    def _library_encoder(self) -> "LibraryEncoder":
        from recsys.content.library_models import open_library_model

        stored = self.manifest["model_settings"]  # older sets name settings that are gone
        model = ModelConfig(**{name: stored[name] for name in ModelConfig.model_fields})
        return open_library_model(model, self.path / MODEL_FOLDER)


def current_embeddings(settings: Settings) -> EmbeddingSet | None:
    """The current set, checked against its own hashes; None before the first run. Raises
    `EmbeddingError` if the set is damaged."""
    try:
        return open_current(open_store(settings), POINTER_KEY, SETS_KEY, EmbeddingSet)
    except DamagedError as error:
        raise EmbeddingError(f"{settings.embeddings / CURRENT}: {error}") from error


def current_set_id(settings: Settings) -> str | None:
    """Name of the current set, None before the first run."""
    return open_store(settings).leads_to(POINTER_KEY)


def set_retention(settings: Settings, keep: int) -> Retention:
    """The newest `keep` sets stay, and the current one."""

    def kept(names: list[str]) -> list[str]:
        current = current_set_id(settings)
        return names[-keep:] + ([current] if current else [])

    store = open_store(settings)
    return bundle_retention("embedding sets", store, settings.embeddings, SETS_KEY, kept)
