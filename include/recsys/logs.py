"""Log files for people: one format, local time, rotation that is safe for several processes."""

import functools
import logging
import re
import threading
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from recsys.publishing import set_aside
from recsys.retention import Retention
from recsys.settings import Settings

MAX_BYTES = 10_000_000
BACKUPS = 5
LINE = "%(asctime)s | %(levelname)s | %(name)s | %(message)s"

_ROTATED = re.compile(r".+\.log\.\d+(\.gz)?")
# Control characters, separators of lines, and what turns the direction of writing.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")

_lock = threading.Lock()


class LocalTimeFormatter(logging.Formatter):
    """Formats the time of a record in the time zone of the shop, to the second."""

    def __init__(self, line: str, timezone: ZoneInfo) -> None:
        super().__init__(line, "%Y-%m-%d %H:%M:%S")
        self.converter = lambda moment: datetime.fromtimestamp(moment or 0, timezone).timetuple()

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        """The line; nothing from outside makes a line or a colour of its own in it. A record with
        the attribute ``lines`` holds several, made by somebody who knows that."""
        line = super().formatMessage(record)
        if hasattr(record, "lines"):
            return line
        line = line.encode("utf-8", "backslashreplace").decode()
        return _UNPRINTABLE.sub(lambda found: repr(found[0])[1:-1], line)


@functools.cache
def _handler_class() -> Any:
    # With it comes redis, where that is installed, and every Airflow process loads this module.
    from concurrent_log_handler import ConcurrentRotatingFileHandler

    class Handler(ConcurrentRotatingFileHandler):
        """Sets a folder in the place of its file aside, whenever it comes there."""

        def emit(self, record: logging.LogRecord) -> None:
            try:
                if Path(self.baseFilename).is_dir():
                    set_aside(Path(self.baseFilename))
            except OSError:  # another process was first, or nobody may
                return self.handleError(record)
            return super().emit(record)

    return Handler


def file_logger(
    name: str, path: Path, timezone: ZoneInfo, *, named_lines: bool = True
) -> logging.Logger:
    """The logger that writes lines of `name` to the file `path` and nowhere else. Repeated calls
    give the same logger. `named_lines` false leaves the name column out."""
    logger = logging.getLogger(f"recsys.file.{path}.{name}")
    with _lock:
        if not logger.handlers:
            path.parent.mkdir(parents=True, exist_ok=True)
            handler = _handler_class()(
                str(path), maxBytes=MAX_BYTES, backupCount=BACKUPS, encoding="utf-8"
            )
            line = LINE.replace("%(name)s | ", f"{name} | " if named_lines else "")
            handler.setFormatter(LocalTimeFormatter(line, timezone))
            logger.addHandler(handler)
            logger.setLevel(logging.INFO)
            logger.propagate = False
    return logger


def fields(**values: Any) -> str:
    """``" | key=value, key=value"``: the fields that end a log message."""
    return " | " + ", ".join(f"{key}={value}" for key, value in values.items())


def log_retention(settings: Settings, keep_days: float) -> Retention:
    """Rotated log files go by age; those that are written to stay."""
    return Retention(
        "rotated logs",
        settings.logs,
        lambda: [path for path in settings.logs.rglob("*") if _ROTATED.fullmatch(path.name)],
        timedelta(days=keep_days),
    )
