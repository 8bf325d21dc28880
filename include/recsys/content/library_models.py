"""Any sentence-transformers model: opened from a folder or the hub, encoding with its prompts.

Importing the library takes seconds and half a gigabyte, so only these functions do it."""

import importlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import requests

from recsys.arrays import Float32Array, unit_rows
from recsys.content import ModelConfig
from recsys.errors import InputError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

_HUB_TIMEOUT_SECONDS = 3.0


class ModelUnavailableError(InputError):
    """The wanted model cannot be had here and now."""


@dataclass(frozen=True)
class LibraryEncoder:
    """A loaded model with its settings."""

    model: "SentenceTransformer"
    config: ModelConfig
    segment: Callable[[str], str] | None
    revision: str | None  # the commit of a hub model, None for a folder

    @property
    def dimensions(self) -> int:
        return int(self.model.get_embedding_dimension() or 0)

    def encode_products(self, texts: Sequence[str]) -> Float32Array:
        """``(texts, d)`` unit vectors of product texts."""
        return self._encode(texts, self.config.product_prompt)

    def encode_query(self, text: str) -> Float32Array:
        """``(d,)`` unit vector of a query."""
        return np.asarray(self._encode([text], self.config.query_prompt)[0])

    def save(self, folder: Path) -> None:
        """Write the model into `folder`, from which `open_library_model` opens it again."""
        self.model.save(str(folder), create_model_card=False)

    def _encode(self, texts: Sequence[str], prompt: str) -> Float32Array:
        segmented = [self.segment(text) for text in texts] if self.segment else list(texts)
        vectors = self.model.encode(
            segmented, prompt=prompt, show_progress_bar=False, convert_to_numpy=True
        )
        found = np.asarray(vectors, dtype=np.float32)
        if not np.isfinite(found).all():
            raise ModelUnavailableError(f"{self.config.name}: the model gives vectors with NaN")
        return unit_rows(found)


def open_library_model(config: ModelConfig, folder: Path | None = None) -> LibraryEncoder:
    """The model that `config` names, or the copy of it in `folder`.

    Raises `ModelUnavailableError` if it is neither a folder nor cached (nor, with ``download``,
    on a hub that answers within three seconds), if it cannot be loaded, or if the word
    segmenter is not installed."""
    segment = _open_segmenter(config.word_segmenter) if config.word_segmenter else None
    source = str(folder) if folder else str(Path(config.name).expanduser())
    is_folder = Path(source).is_dir()
    if not is_folder and (source.startswith(("/", ".", "~")) or source.count("/") > 1):
        raise ModelUnavailableError(f"{config.name}: there is no folder of this name")
    local = is_folder or not config.download
    if not local:
        _require_hub(config.name)
    try:
        from sentence_transformers import SentenceTransformer

        model = SentenceTransformer(
            source,
            revision=None if is_folder else config.revision,
            local_files_only=local,
            trust_remote_code=False,
        )
    except Exception as error:  # the library lets errors of all its parts through
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ModelUnavailableError(f"{config.name}: cannot be loaded: {reason[0]}") from error
    if config.max_length is not None:
        model.max_seq_length = config.max_length
    inner = getattr(getattr(model[0], "auto_model", None), "config", None)
    commit = None if is_folder else getattr(inner, "_commit_hash", None)
    return LibraryEncoder(model, config, segment, commit)


def _require_hub(name: str) -> None:
    """Ask the hub for a sign of life, so that its absence costs seconds and not minutes."""
    hub = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    try:
        requests.head(hub, timeout=_HUB_TIMEOUT_SECONDS)
    except requests.RequestException as error:
        problem = f"the hub {hub} does not answer: {type(error).__name__}"
        raise ModelUnavailableError(f"{name}: {problem}") from error


def _open_segmenter(path: str) -> Callable[[str], str]:
    module, _, name = path.partition(":")
    try:
        split = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        problem = f"{path} cannot be imported: {error}"
        raise ModelUnavailableError(f"content.yaml: model.word_segmenter: {problem}") from error

    def segment(text: str) -> str:
        found = split(text)
        if isinstance(found, str):
            return found
        return " ".join(str(word).replace(" ", "_") for word in found)

    return segment
