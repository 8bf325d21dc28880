"""The job bert_embeddings: product texts of the published version -> the current embedding set."""

import fcntl
import importlib
import importlib.metadata
import logging
import os
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from recsys.arrays import Float32Array
from recsys.config import load_config
from recsys.content import CATALOG_STATIC, ContentConfig, ModelConfig, embeddings
from recsys.content.embeddings import EmbeddingSet, current_embeddings, set_retention
from recsys.content.library_models import LibraryEncoder, ModelUnavailableError, open_library_model
from recsys.content.product_texts import TextWork, find_work, recipe_of, used_fields
from recsys.content.static_encoder import StaticEncoder
from recsys.errors import InputError
from recsys.logs import fields
from recsys.publishing import atomic_folder, write_json
from recsys.retention import ABANDONED_AFTER, Removal
from recsys.settings import Settings
from recsys.storage import open_store
from recsys.storage.bundle import write_manifest

_ENCODED_AT_ONCE = 10_000  # texts; their strings and vectors are held twice for a moment
_LIBRARIES = ("sentence-transformers", "tokenizers", "torch", "transformers")
FALLBACK_ALERT = "embedding_fallback"

logger = logging.getLogger(__name__)

Encoder = StaticEncoder | LibraryEncoder


class _Choice(NamedTuple):
    """Which model runs. `opened` is set when the wanted model had to be tried."""

    model: str
    fallback_reason: str | None = None
    opened: LibraryEncoder | None = None


def build_embeddings(settings: Settings, *, force: bool = False) -> dict[str, Any]:
    """Embed the products of the published version that are new or changed, all with `force`.

    Returns ``set_id``, whether it is a ``new_set``, ``model``, ``requested_model``,
    ``fallback_reason``, ``reason`` (why everything was done afresh, or None), counts and
    ``seconds``.

    Raises `InputError` if no version is published, it has no products or none of the configured
    columns, or the wanted model cannot be had and ``fallback`` is ``strict``. The current set
    stays."""
    from recsys.data.versions import current_version

    config = load_config(settings, ContentConfig)
    version = current_version(settings)
    return embed_products(settings, config, version.products(), version.version_id, force=force)


def embed_products(
    settings: Settings,
    config: ContentConfig,
    products: pd.DataFrame,
    data_version: str,
    *,
    force: bool = False,
) -> dict[str, Any]:
    """`build_embeddings` for the given `products` (columns of `recsys.schema`)."""
    if products.empty:
        raise InputError(f"data version {data_version} has no products to embed")
    started = time.monotonic()
    with _only_run(settings):
        previous = _previous(settings)
        choice = _choose(config, used_fields(products, config.text_fields), previous, force=force)
        work = find_work(products, config, choice.model, previous, force=force)
        summary: dict[str, Any] = {
            "data_version": data_version,
            "model": choice.model,
            "requested_model": config.model.name,
            "fallback_reason": choice.fallback_reason,
            "reason": work.reason,
            "products": len(work.product_ids),
            "without_text": work.without_text,
            "encoded": 0,
        }
        summary["new_set"] = not (work.base is not None and work.is_done)
        if work.base is not None and work.is_done:
            summary["set_id"] = work.base.set_id
            logger.info("No product text changed%s", fields(set=work.base.set_id))
        else:
            summary |= _write_set(settings, config, work, choice, summary)
            Removal(settings).execute([set_retention(settings, config.keep_sets)])
            open_store(settings).remove_unfinished(
                embeddings.SETS_KEY, datetime.now(UTC) - ABANDONED_AFTER
            )
            told = {name: summary[name] for name in ("model", "encoded", "products")}
            logger.info("Embeddings published%s", fields(set=summary["set_id"], **told))
    return summary | {"seconds": round(time.monotonic() - started, 2)}


def count_new_texts(settings: Settings) -> int:
    """How many products of the published version have a text that the current set has not embedded:
    new or changed ones, or all of them after other settings. 0 where there is no set yet: the
    first one is asked for. Raises `InputError` as `build_embeddings` does."""
    from recsys.data.versions import current_version

    previous = _previous(settings)
    if previous is None:
        return 0
    config, products = load_config(settings, ContentConfig), current_version(settings).products()
    # What the set was made by, wanted or not: opening a model only to look would take minutes.
    model = str(previous.manifest["model"])
    return int(find_work(products, config, model, previous, force=False).new.sum())


def alert_on_fallback(settings: Settings, summary: dict[str, Any]) -> dict[str, str]:
    """Warn that another model ran than the wanted one; all clear when it is back. Returns what
    became of the message on each channel; nothing if there was none to send."""
    from recsys.alerting import AlertManager

    if summary["fallback_reason"] is None:
        cleared = f"Embeddings are made by {summary['model']} again"
        return AlertManager(settings).resolve(FALLBACK_ALERT, cleared)
    facts = {name: summary[name] for name in ("model", "requested_model")}
    facts["reason"] = summary["fallback_reason"]
    message = f"embeddings were not made by the wanted model: {facts['reason']}"
    return AlertManager(settings).send_alert(FALLBACK_ALERT, message, "warning", context=facts)


def _choose(
    config: ContentConfig, fields: list[str], previous: EmbeddingSet | None, *, force: bool
) -> _Choice:
    """The wanted model, or the static one if it cannot be had and a fallback is allowed. The wanted
    model is not opened when the previous set holds it."""
    wanted = config.model.name
    if wanted == CATALOG_STATIC:
        return _Choice(CATALOG_STATIC)
    held = previous is not None and previous.manifest["recipe"] == recipe_of(config, fields, wanted)
    if held and not force:
        return _Choice(wanted)
    try:
        return _Choice(wanted, opened=open_library_model(config.model))
    except ModelUnavailableError as error:
        if config.model.fallback == "strict":
            raise
        logger.warning("Falling back to %s | reason=%s", CATALOG_STATIC, error)
        return _Choice(CATALOG_STATIC, fallback_reason=str(error))


def _encoder(config: ContentConfig, work: TextWork, choice: _Choice) -> Encoder:
    if choice.opened is not None:
        return choice.opened
    if work.base is not None:
        folder = work.base.path / embeddings.MODEL_FOLDER
        static = choice.model == CATALOG_STATIC
        return StaticEncoder.load(folder) if static else open_library_model(config.model, folder)
    from recsys.content.static_fit import fit_static

    # The import takes longer than the fit, most of which runs outside the interpreter.
    threading.Thread(target=importlib.import_module, args=("sentence_transformers",)).start()
    return fit_static(work.texts)


def _write_set(
    settings: Settings,
    config: ContentConfig,
    work: TextWork,
    choice: _Choice,
    summary: dict[str, Any],
) -> dict[str, Any]:
    now = datetime.now(UTC)
    set_id = f"emb_{now:%Y%m%d_%H%M%S_%f}"
    encoder = _encoder(config, work, choice)
    vectors, encoded = _vectors(work, encoder)
    with atomic_folder(settings.embeddings / set_id) as folder:
        if work.base is not None:
            # The files never change, so that another name for them is as good as a copy.
            kept = work.base.path / embeddings.MODEL_FOLDER
            shutil.copytree(kept, folder / embeddings.MODEL_FOLDER, copy_function=os.link)
            revision = work.base.manifest["revision"]
        else:
            encoder.save(folder / embeddings.MODEL_FOLDER)
            revision = getattr(encoder, "revision", None)
        np.save(folder / embeddings.VECTORS_FILE, vectors)
        write_json(folder / embeddings.IDS_FILE, work.product_ids)
        write_json(folder / embeddings.HASHES_FILE, work.hashes)
        used = ModelConfig() if choice.model == CATALOG_STATIC else config.model
        facts = {
            "set_id": set_id,
            "encoded": encoded,
            "dimensions": encoder.dimensions,
            "text_fields": work.fields,
            "boilerplate_sentences": len(work.boilerplate),
            "since_fit": work.since_fit,
        }
        details = {
            "created_at": now.isoformat(),
            "recipe": work.recipe,
            "revision": revision,
            "model_settings": used.model_dump(),
            "libraries": {name: importlib.metadata.version(name) for name in _LIBRARIES},
            "boilerplate": work.boilerplate,
        }
        write_manifest(folder, summary | facts | details)
    store = open_store(settings)
    store.publish(f"{embeddings.SETS_KEY}/{set_id}")
    store.point(embeddings.POINTER_KEY, f"{embeddings.SETS_KEY}/{set_id}", lambda _: True)
    return facts


def _vectors(work: TextWork, encoder: Encoder) -> tuple[Float32Array, int]:
    """Vectors of all products, and how many texts were encoded for it: equal ones only once."""
    vectors = np.zeros((len(work.hashes), encoder.dimensions), dtype=np.float32)
    kept = np.flatnonzero(work.previous_rows >= 0)
    if work.base is not None:
        vectors[kept] = work.base.vectors[work.previous_rows[kept]]
    new = np.flatnonzero(work.new)
    if not len(new):
        return vectors, 0
    hashes = pd.Series(work.hashes, dtype="str").iloc[new]
    place, _ = pd.factorize(hashes)
    copies = hashes.duplicated().to_numpy()
    first = new[~copies]
    for start in range(0, len(first), _ENCODED_AT_ONCE):
        rows = first[start : start + _ENCODED_AT_ONCE]
        vectors[rows] = encoder.encode_products(work.texts.iloc[rows].tolist())
    vectors[new[copies]] = vectors[first[place[copies]]]
    return vectors, len(first)


def _previous(settings: Settings) -> EmbeddingSet | None:
    try:
        return current_embeddings(settings)
    except InputError as error:
        logger.warning("The current embedding set is damaged and made anew | reason=%s", error)
        return None


@contextmanager
def _only_run(settings: Settings) -> Iterator[None]:
    """Wait for another run to end; the lock ends with the process."""
    settings.embeddings.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(settings.embeddings, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
