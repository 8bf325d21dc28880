"""What the days were made of, so that a run makes only those again whose lists or events are not
what they were. It can be lost: then every day is made again, and is the same."""

import hashlib
import json
import logging
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
from pydantic import TypeAdapter

from recsys.publishing import write_json
from recsys.settings import Settings

logger = logging.getLogger(__name__)

_FILE: Final = "ledger.json"
_FORMAT: Final = 2  # changes with the rules: then everything is made again


@dataclass
class Ledger:
    """Days are ISO dates. `seen_until` is the moment up to which received events were looked at.

    Of a day's events: `events`, the digest of what happened on it; `attributed`, of what that was
    attributed with; `reaches`, of the outcomes by the day of their lists. `days`: of what the
    figures of a day's lists were made of. `sound`: what tells whether files that were written, or
    could be read, are still the same (`daily.stamp_of`). `quiet` is how many customers were shown
    lists since the last event, `last_event`, and `longest_quiet` the most of those that ended on a
    day."""

    seen_until: str | None = None
    events: dict[str, str] = field(default_factory=dict)
    attributed: dict[str, str] = field(default_factory=dict)
    reaches: dict[str, dict[str, str]] = field(default_factory=dict)
    days: dict[str, str] = field(default_factory=dict)
    sound: dict[str, str] = field(default_factory=dict)
    last_event: str | None = None
    quiet: int = 0
    longest_quiet: dict[str, int] = field(default_factory=dict)

    def save(self, settings: Settings) -> None:
        write_json(_path(settings), {"format": _FORMAT, **asdict(self)})

    def forget_before(self, first: str) -> None:
        """Drop the days before `first`."""
        for name in ("events", "attributed", "reaches", "days", "longest_quiet"):
            entries = getattr(self, name)
            setattr(self, name, {day: what for day, what in entries.items() if day >= first})


_LEDGER: Final = TypeAdapter(Ledger)


def read_ledger(settings: Settings) -> Ledger:
    """What the last run saved; an empty one if there is none that this code can read."""
    path = _path(settings)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content.pop("format") == _FORMAT:
            ledger = _LEDGER.validate_python(content)
            if ledger.seen_until is not None:
                datetime.fromisoformat(ledger.seen_until)
            return ledger
        logger.info("The outcomes' rules have changed: all days are made again | file=%s", path)
    except FileNotFoundError:
        pass
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        logger.warning("No ledger of ours, made again | file=%s, reason=%r", path, error)
    return Ledger()


def digest_of(*parts: object) -> str:
    """Of texts and numbers."""
    text = "\x1f".join(map(str, parts))
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


def digest_of_rows(frame: pd.DataFrame, columns: Iterable[str]) -> str:
    """Of the rows of a frame in their order."""
    hashes = pd.util.hash_pandas_object(frame[list(columns)], index=False)
    return hashlib.blake2b(np.asarray(hashes).tobytes(), digest_size=12).hexdigest()


def _path(settings: Settings) -> Path:
    return settings.outcomes / _FILE
