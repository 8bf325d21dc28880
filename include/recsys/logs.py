"""Log files for people: one format, local time, rotation that is safe for several processes."""

import functools
import json
import logging
import re
import threading
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final, Literal
from zoneinfo import ZoneInfo

from recsys.publishing import set_aside
from recsys.retention import Retention
from recsys.settings import Settings

MAX_BYTES = 10_000_000
BACKUPS = 5
LINE = "%(asctime)s | %(levelname)s | %(name)s | %(message)s"

LogFormat = Literal["text", "json"]
"""Lines for people, or JSON objects for what collects logs; one line a record either way."""

_FIELDS: Final = re.compile(r"(.*?) \| (\w+=.*)", re.DOTALL)
_FIELD: Final = re.compile(r", (?=\w+=)")
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


class JsonFormatter(LocalTimeFormatter):
    """Formats a record as one JSON object: ``time`` (ISO 8601 in the time zone of the shop),
    ``level``, ``logger``, ``message``, and where there are any ``fields`` (texts by name, what
    `fields` put behind the message) and ``error`` (the traceback)."""

    def __init__(self, name: str | None, timezone: ZoneInfo) -> None:
        super().__init__(LINE, timezone)
        self._name, self._zone = name, timezone

    def format(self, record: logging.LogRecord) -> str:
        """The object; several lines of a record with the attribute ``lines``."""
        if hasattr(record, "lines"):  # made as lines of text, in the form of `LINE`
            return "\n".join(map(self._of_line, super().format(record).split("\n")))
        error = self.formatException(record.exc_info) if record.exc_info else None
        moment = datetime.fromtimestamp(int(record.created), self._zone)
        return self._object(moment, record.levelname, record.name, record.getMessage(), error)

    def _of_line(self, line: str) -> str:
        time, level, name, message = line.split(" | ", 3)
        moment = datetime.fromisoformat(time).replace(tzinfo=self._zone)
        return self._object(moment, level, name, message, None)

    def _object(
        self, moment: datetime, level: str, name: str, message: str, error: str | None
    ) -> str:
        found = _FIELDS.fullmatch(message)
        content: dict[str, Any] = {
            "time": moment.isoformat(),
            "level": level,
            "logger": self._name or name,
            "message": found[1] if found else message,
        }
        if found:
            content["fields"] = dict(part.split("=", 1) for part in _FIELD.split(found[2]))
        if error is not None:
            content["error"] = error
        text = json.dumps(content, ensure_ascii=False).encode("utf-8", "backslashreplace").decode()
        return _UNPRINTABLE.sub(lambda char: f"\\u{ord(char[0]):04x}", text)


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
    name: str,
    path: Path,
    timezone: ZoneInfo,
    *,
    named_lines: bool = True,
    log_format: LogFormat = "text",
) -> logging.Logger:
    """The logger that writes lines of `name` to the file `path` and nowhere else. Repeated calls
    give the same logger. `named_lines` false leaves the name column out of lines of text."""
    logger = logging.getLogger(f"recsys.file.{path}.{name}")
    with _lock:
        if not logger.handlers:
            path.parent.mkdir(parents=True, exist_ok=True)
            handler = _handler_class()(
                str(path), maxBytes=MAX_BYTES, backupCount=BACKUPS, encoding="utf-8"
            )
            line = LINE.replace("%(name)s | ", f"{name} | " if named_lines else "")
            handler.setFormatter(
                JsonFormatter(name, timezone)
                if log_format == "json"
                else LocalTimeFormatter(line, timezone)
            )
            logger.addHandler(handler)
            logger.setLevel(logging.INFO)
            logger.propagate = False
    return logger


def log_to_output(log_format: LogFormat, timezone: ZoneInfo) -> None:
    """Let this process log to its standard error."""
    logging.basicConfig(level=logging.INFO, format=LINE)
    if log_format == "json":
        for handler in logging.getLogger().handlers:
            handler.setFormatter(JsonFormatter(None, timezone))


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
