"""Embedding sets: vectors of all products with the model that made them, swapped as one.

``data/embeddings/<set_id>/`` never changes once it exists; ``data/embeddings/current`` is a link
to one of them; both belong to the store (`recsys.storage`). A set of ``catalog-static`` is read,
queried and searched with NumPy and ``tokenizers`` alone.
"""

import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from recsys.arrays import BoolArray, Float32Array
from recsys.content import CATALOG_STATIC, ModelConfig
from recsys.content.static_encoder import StaticEncoder
from recsys.errors import InputError
from recsys.publishing import sha256_of
from recsys.settings import Settings
from recsys.storage import open_store
from recsys.text import normalise

CURRENT = "current"
SETS_KEY = "data/embeddings"
POINTER_KEY = f"{SETS_KEY}/{CURRENT}"
IDS_FILE = "product_ids.json"
HASHES_FILE = "text_hashes.json"
VECTORS_FILE = "vectors.npy"
METADATA_FILE = "metadata.json"
MODEL_FOLDER = "model"
LAYOUT = 1

_ATTEMPTS = 20
_NEEDED = {"files", "model", "model_settings", "recipe", "boilerplate", "since_fit", "revision"}


class EmbeddingError(InputError):
    """An embedding set is damaged or of a layout this code does not know."""


@dataclass(frozen=True)
class EmbeddingSet:
    """One immutable set.

    Attributes
    ----------
    set_id
        Name of its folder.
    product_ids
        One id a row of `vectors`.
    vectors
        ``(products, d)`` float32 of length one, memory-mapped; zeros for a product without text.
    metadata
        What made it: ``model``, ``requested_model``, ``fallback_reason``, ``text_fields`` and
        more, see ``docs/embeddings.md``.
    """

    path: Path
    set_id: str
    product_ids: list[str]
    vectors: Float32Array
    metadata: dict[str, Any] = field(repr=False)

    @property
    def is_static(self) -> bool:
        """Queries can be encoded without torch."""
        return bool(self.metadata["model"] == CATALOG_STATIC)

    def text_hashes(self) -> list[str]:
        """Hash of the text behind each vector, ``""`` where a product had none."""
        hashes: list[str] = json.loads((self.path / HASHES_FILE).read_text(encoding="utf-8"))
        return hashes

    def encode_query(self, text: str) -> Float32Array:
        """``(d,)`` unit vector of a query in the space of `vectors`; zeros if nothing is known.

        Of other models than catalog-static this loads torch and the model, once.
        """
        query = normalise(text)
        if self.is_static:
            vector: Float32Array = self._static_encoder.encode([query])[0]
            return vector
        return self._library_encoder.encode_query(query)

    def search(self, text: str, k: int) -> list[tuple[str, float]]:
        """The `k` products nearest to a query, best first, as (product id, cosine)."""
        return self.nearest(self.encode_query(text), k)

    def nearest(self, vector: Float32Array, k: int) -> list[tuple[str, float]]:
        """The `k` products nearest to a vector, best first, as (product id, cosine).

        Products without text are left out, and a vector of zeros has no neighbours.
        """
        k = min(k, int(self._has_text.sum()))
        if k < 1 or not vector.any():
            return []
        every = np.where(self._has_text, self.vectors @ vector, -np.inf)
        rows = np.argpartition(-every, k - 1)[:k]
        scores = every[rows]
        order = np.lexsort((rows, -scores))
        return [
            (self.product_ids[row], float(score))
            for row, score in zip(rows[order], scores[order], strict=True)
        ]

    @cached_property
    def _has_text(self) -> BoolArray:
        return np.asarray(self.vectors.any(axis=1), dtype=np.bool_)

    @cached_property
    def _static_encoder(self) -> StaticEncoder:
        return StaticEncoder.load(self.path / MODEL_FOLDER)

    @cached_property
    def _library_encoder(self) -> Any:
        from recsys.content.library_models import open_library_model

        stored = self.metadata["model_settings"]  # older sets name settings that are gone
        model = ModelConfig(**{name: stored[name] for name in ModelConfig.model_fields})
        return open_library_model(model, self.path / MODEL_FOLDER)


def current_embeddings(settings: Settings) -> EmbeddingSet | None:
    """The current set, checked against its own hashes; None before the first run.

    Raises
    ------
    EmbeddingError
        If the set is damaged.
    """
    store = open_store(settings)
    for _ in range(_ATTEMPTS):
        set_id = current_set_id(settings)
        if set_id is None:
            return None
        key = f"{SETS_KEY}/{set_id}"
        try:
            found = open_embeddings(store.fetch(key))
        except FileNotFoundError as error:
            # removed between reading the link and the files? then the link leads elsewhere now
            if current_set_id(settings) == set_id:
                missing = error.filename or settings.home / key
                raise EmbeddingError(f"{settings.home / key}: {missing} does not exist") from error
        else:
            store.follow(POINTER_KEY, key)
            return found
    link = settings.embeddings / CURRENT
    raise EmbeddingError(f"{link}: the embedding sets change faster than they can be read")


def current_set_id(settings: Settings) -> str | None:
    """Name of the current set, None before the first run."""
    return open_store(settings).leads_to(POINTER_KEY)


def open_embeddings(folder: Path) -> EmbeddingSet:
    """Read the set in `folder`.

    Raises
    ------
    EmbeddingError
        If a file is not what the metadata describe, or the parts do not fit each other.
    FileNotFoundError
        If a file is missing.
    """
    metadata = _read_metadata(folder / METADATA_FILE)
    for name, digest in metadata["files"].items():
        if sha256_of(folder / name) != digest:
            raise EmbeddingError(f"{folder / name}: its content is not what metadata.json says")
    product_ids = json.loads((folder / IDS_FILE).read_text(encoding="utf-8"))
    vectors = np.load(folder / VECTORS_FILE, mmap_mode="r", allow_pickle=False)
    if vectors.dtype != np.float32 or vectors.ndim != 2 or len(vectors) != len(product_ids):
        raise EmbeddingError(
            f"{folder / VECTORS_FILE}: expected float32 vectors of {len(product_ids)} products, "
            f"found {vectors.dtype} of shape {vectors.shape}"
        )
    return EmbeddingSet(folder, folder.name, product_ids, vectors, metadata)


def _read_metadata(file: Path) -> dict[str, Any]:
    try:
        metadata: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        layout = int(metadata["layout"])
        complete = metadata.keys() >= _NEEDED
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise EmbeddingError(f"{file}: cannot be read: {error!r}") from error
    if layout > LAYOUT or not complete:
        raise EmbeddingError(f"{file}: written in layout {layout}, this code knows {LAYOUT}")
    return metadata
