"""The language of a page: its texts, and the form of its numbers, days and times."""

import json
from collections.abc import Mapping
from datetime import UTC, date, datetime, tzinfo
from functools import cache
from pathlib import Path
from typing import Any, Final

LANGUAGES: Final = {"vi": "Tiếng Việt", "en": "English"}
"""The languages of the pages by code, each in its own words."""
DASH: Final = "–"

_UNITS: Final = ((86_400, "days"), (3_600, "hours"), (60, "minutes"), (1, "seconds"))
_MONTHS: Final = (
    "Jan",
    "Feb",
    "Mar",
    "Apr",
    "May",
    "Jun",
    "Jul",
    "Aug",
    "Sep",
    "Oct",
    "Nov",
    "Dec",
)
_SWAPPED: Final = str.maketrans(",.", ".,")


class Language:
    """How one language says things; times are shown in `zone`, `texts` are by name.

    >>> vi = Language("vi", UTC, {})
    >>> vi.number(1234.5, 1), vi.percent(0.0512, 2)
    ('1.234,5', '5,12%')
    """

    def __init__(self, code: str, zone: tzinfo, texts: Mapping[str, str]) -> None:
        self.code = code
        self.zone = zone
        self._texts = texts

    def say(self, name: str, /, **values: object) -> str:
        """The text called `name` with its blanks filled in. Raises `KeyError` without one."""
        return self._texts[name].format(**values)

    def count(self, name: str, number: int) -> str:
        """The text for so many: ``name.one`` for one, else `name`."""
        chosen = f"{name}.one" if number == 1 else name
        return self.say(chosen, count=self.number(number))

    def known(self, group: str, name: object) -> str:
        """What the catalogue calls `name` of a `group`; what it does not know keeps its name."""
        return self._texts.get(f"{group}.{name}", str(name))

    def number(self, value: float | None, digits: int = 0) -> str:
        """With so many `digits` after the point; a dash for what is not known."""
        return DASH if value is None else self.written(f"{value:,.{digits}f}")

    def amount(self, value: Any) -> str:
        """A number without digits that do not matter, several values with commas."""
        if isinstance(value, list | tuple):
            return ", ".join(map(str, value))
        plain = isinstance(value, int | float) and not isinstance(value, bool)
        return self.written(f"{value:,.15g}") if plain else str(value)

    def percent(self, share: float | None, digits: int = 0) -> str:
        """A share as a percentage."""
        return DASH if share is None else self.written(f"{share:.{digits}%}")

    def change(self, share: float | None) -> str:
        """A difference as a percentage: ``+5.2%``."""
        return DASH if share is None else self.written(f"{share:+.1%}")

    def small(self, value: float) -> str:
        """With two digits that matter, wherever its point is: a probability."""
        return self.written(f"{value:.2g}")

    def day(self, value: date | str | None) -> str:
        """``28/11/2026``, ``28 Nov 2026``: a date, or the local date of a moment."""
        if isinstance(value, str) and len(value) == len("2026-11-28"):
            try:
                value = date.fromisoformat(value)
            except ValueError:
                return DASH
        if value is None or isinstance(value, datetime | str):
            local = self._local(value)
            if local is None:
                return DASH
            value = local.date()
        if self.code == "vi":
            return f"{value:%d/%m/%Y}"
        return f"{value.day} {_MONTHS[value.month - 1]} {value.year}"

    def moment(self, value: datetime | str | None) -> str:
        """Day and minute in the zone of the pages."""
        local = self._local(value)
        if local is None:
            return DASH
        between = " " if self.code == "vi" else ", "
        return f"{self.day(local.date())}{between}{local:%H:%M}"

    def _local(self, value: datetime | str | None) -> datetime | None:
        """None for what is no moment, or in no year of the calendar here."""
        known = moment_of(value)
        try:
            return known and known.astimezone(self.zone)
        except OverflowError:
            return None

    def ago(self, value: datetime | str | None, now: datetime) -> str:
        """How long before (or after) `now`, in its largest unit."""
        if (known := moment_of(value)) is None:
            return DASH
        seconds = (now - known).total_seconds()
        for size, unit in _UNITS:
            if abs(seconds) >= size:
                name = f"ago.{unit}" if seconds > 0 else f"in.{unit}"
                return self.count(name, int(abs(seconds) // size))
        return self.say("ago.now")

    def duration(self, seconds: float | None) -> str:
        """``0.4 s``, ``75 s``, ``12 min``, ``3.5 h``."""
        if seconds is None:
            return DASH
        if seconds < 120:
            return self.say("duration.s", value=self.number(seconds, 1 if seconds < 10 else 0))
        if seconds < 7_200:
            return self.say("duration.min", value=self.number(seconds / 60))
        return self.say("duration.h", value=self.number(seconds / 3_600, 1))

    def zone_name(self, now: datetime) -> str:
        """``Asia/Ho_Chi_Minh, UTC+7``."""
        offset = now.astimezone(self.zone).utcoffset()
        hours = (offset.total_seconds() if offset else 0) / 3_600
        return f"{self.zone}, UTC{hours:+g}"

    def written(self, text: str) -> str:
        """A number in Python's form, in the form of the language."""
        return text.translate(_SWAPPED) if self.code == "vi" else text


@cache
def read_texts(folder: Path, code: str) -> Mapping[str, str]:
    """The texts by name that `folder` has for a language, in ``vi.json`` and ``en.json``."""
    content: dict[str, str] = json.loads((folder / f"{code}.json").read_text(encoding="utf-8"))
    return content


def moment_of(value: datetime | str | None) -> datetime | None:
    """Stored moments are ISO text; those without a zone are UTC. None for what is no moment."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return None
    if value is None:
        return None
    return value if value.tzinfo else value.replace(tzinfo=UTC)
