"""Fits that take minutes, kept: what tuning fitted, the report and the hybrid do not fit again, nor
does a task that was killed and retried.

``artifacts/cf/fits/<type>/<key>/`` is a bundle with ``model/`` and the measurements of the training
in ``progress.json``. The key is a hash of all that a fit depends on, the code of the model types
included. Beside it lies ``<key>.checkpoint/`` as long as the fit has not come to its end."""

import functools
import hashlib
import json
import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

import recsys.models
from recsys.errors import InputError
from recsys.models.base import Histories, Model, Progress
from recsys.models.storage import read_json
from recsys.publishing import replaced_folder, write_json
from recsys.retention import ABANDONED_AFTER, Retention
from recsys.settings import Settings
from recsys.storage.bundle import Bundle, remove_folder, write_manifest

_MODEL = "model"
_PROGRESS = "progress.json"

logger = logging.getLogger(__name__)

Measured = Sequence[tuple[int, dict[str, float]]]
"""Numbers of iterations, and what each measured."""


def fits_folder(settings: Settings) -> Path:
    return settings.artifacts / "fits"


def fit_retention(settings: Settings) -> Retention:
    """A fit is of use to the training that made it, and to its retries."""
    root = fits_folder(settings)
    return Retention(
        "kept fits", root, lambda: root.glob("*/*"), ABANDONED_AFTER, remove=remove_folder
    )


@dataclass(frozen=True)
class KeptFits:
    """Fits in `folder`. Only model types that say that they are `slow` are kept."""

    folder: Path

    def fit(
        self,
        model: Model,
        seed: int,
        histories: Histories,
        items: int,
        progress: Progress | None = None,
    ) -> Model:
        """`model`, created with `seed`, as ``model.fit(histories, items, progress)`` makes it; of a
        kept one `progress` hears what was measured then.

        One fit is made at a time: two would share the processor, and need the memory twice."""
        if not model.slow:
            return model.fit(histories, items, progress)
        key = _key(model, seed, histories, items)
        folder = self.folder / model.model_type / key
        if (kept := _read(folder, model, progress)) is not None:
            return kept
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self.folder / "fits.lock"):
            if (kept := _read(folder, model, progress)) is not None:
                return kept
            fitted = _fit(folder, model, histories, items, progress)
        return _read(folder, model, None) or fitted

    def keep(
        self, model: Model, seed: int, histories: Histories, items: int, measured: Measured
    ) -> None:
        """Keep `model`, which somebody has fitted in another way than `fit` and to the same end;
        `measured` is what its training told."""
        folder = self.folder / model.model_type / _key(model, seed, histories, items)
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self.folder / "fits.lock"):
            _write(folder, model, measured)


def _fit(
    folder: Path, model: Any, histories: Histories, items: int, progress: Progress | None
) -> Model:
    measured: list[tuple[int, dict[str, float]]] = []

    def note(iteration: int, values: dict[str, float]) -> None:
        measured.append((iteration, values))
        if progress is not None:
            progress(iteration, values)

    checkpoint = folder.with_name(f"{folder.name}.checkpoint")
    checkpoint.mkdir(parents=True, exist_ok=True)
    fitted: Model = model.fit(histories, items, note, checkpoint=checkpoint)
    _write(folder, fitted, measured)
    shutil.rmtree(checkpoint)
    return fitted


def _write(folder: Path, fitted: Model, measured: Measured) -> None:
    with replaced_folder(folder) as temporary:
        (temporary / _MODEL).mkdir()
        fitted.save(temporary / _MODEL)
        write_json(temporary / _PROGRESS, measured)
        write_manifest(temporary, {"model_type": fitted.model_type})


def _read(folder: Path, model: Model, progress: Progress | None) -> Model | None:
    """The kept fit in `folder`, which is asked as `model` is; None without one that is sound."""
    try:
        with Bundle(folder) as kept:
            kept.verify()
            fitted: Any = type(model).load(folder / _MODEL)
            measured = read_json(folder / _PROGRESS)
    except FileNotFoundError:
        return None
    except InputError as error:
        logger.warning("A kept fit is not sound and is made again: %s", error)
        return None
    if progress is not None:
        for iteration, values in measured:
            progress(iteration, values)
    asked: Model = fitted.asked_with({name: model.hyperparameters[name] for name in _late(model)})
    return asked


def _key(model: Model, seed: int, histories: Histories, items: int) -> str:
    late = _late(model)
    read = {name: value for name, value in model.hyperparameters.items() if name not in late}
    text = json.dumps([model.model_type, read, seed, items, _code()], sort_keys=True)
    digest = hashlib.sha256(text.encode())
    for field in fields(histories):
        array = np.ascontiguousarray(getattr(histories, field.name))
        digest.update(f"{field.name} {array.dtype.str} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _late(model: Model) -> tuple[str, ...]:
    return type(model).score_parameters  # type: ignore[attr-defined]


@functools.cache
def _code() -> str:
    """A hash of the code of all model types: what they share changes fits as well."""
    (folder,) = recsys.models.__path__
    digest = hashlib.sha256()
    for path in sorted(Path(folder).glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
