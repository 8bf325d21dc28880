"""``logs/cf/<type>.log``: what a training did, with its progress."""

import contextlib
import time
from collections.abc import Iterator, Mapping

from recsys.logs import fields, file_logger
from recsys.schedule import load_zone
from recsys.settings import Settings


class TrainingLog:
    """Lines of one training; `curves` holds what its iterations measured."""

    def __init__(self, settings: Settings, model_type: str) -> None:
        path = settings.logs / "cf" / f"{model_type}.log"
        self._logger = file_logger(model_type, path, load_zone(settings))
        self.info = self._logger.info
        self.error = self._logger.error
        self.curves: dict[str, list[float]] = {}

    def progress(self, iteration: int, measured: Mapping[str, float]) -> None:
        values = {name: f"{value:.6g}" for name, value in measured.items()}
        self.info("iteration%s", fields(number=iteration, **values))
        for name, value in measured.items():
            self.curves.setdefault(name, []).append(value)


@contextlib.contextmanager
def training_log(settings: Settings, model_type: str, data_version: str) -> Iterator[TrainingLog]:
    """The log of one training, with its start, and its end or error."""
    log = TrainingLog(settings, model_type)
    log.info("Training started%s", fields(data_version=data_version))
    start = time.monotonic()
    try:
        yield log
    except BaseException as error:
        log.error("Training failed%s", fields(error=error))
        raise
    log.info("Training completed%s", fields(duration=f"{time.monotonic() - start:.1f}s"))
