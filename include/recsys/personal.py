"""Where personal data lies: each area declares it beside the thing that it keeps.

`recsys.upkeep.personal` walks all declarations, for an export of what is kept of a customer, and
for the table in ``docs/privacy.md``. Readers of files and tables for them: `recsys.traces`."""

import functools
import json
import re
import unicodedata
import urllib.parse
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final, NamedTuple

from recsys.errors import InputError
from recsys.ids import MAX_LENGTH, id_fault, normalise_id
from recsys.settings import Settings

SHOP = "while the shop keeps it there"
"""How long what belongs to the shop stays."""

# What an id may be a part of: another id goes on there.
_INNER = r"[\w@+\-]"


_CUSTOMER: Final = "user|customer|session|khach_?hang|khách hàng"
_COLUMN: Final = re.compile(rf"(?:ma_?)?(?:{_CUSTOMER})(?:_?id)?|unit", re.IGNORECASE)
_QUOTE: Final = r"\\*[\"']?"
# What stands right before an id that is named as one: user ID: 3, user_id=3, "user_id": "3".
_NAMED: Final = re.compile(
    rf"(?:(?<![^\W_])(?:{_CUSTOMER})[ _-]?id{_QUOTE}\s*[:=]?|"
    rf"(?<!\w)(?:ma_?)?(?:{_CUSTOMER}){_QUOTE}\s*[:=])\s*{_QUOTE}$",
    re.IGNORECASE,
)
# The same of a number of something else: retries=3, "retries": 3.
_OF_ANOTHER: Final = re.compile(rf"(?!\w*(?:{_CUSTOMER}))\b\w+(?:=|\\*\": ?)$", re.IGNORECASE)
_BEFORE: Final = 60  # characters before an id that may name it
_DATE: Final = re.compile(r"\d{4}-?\d\d-?\d\d")
_LONG_NUMBER: Final = 12
_SHORT_MIX: Final = 4


PSEUDONYM: Final = re.compile("~[0-9a-f]{32}")
"""What `recsys.pseudonyms` makes of an id for logs."""


class Record(NamedTuple):
    """One thing that is kept of `customer`. `place` is the file below the state root, and behind a
    ``#`` the table; `content` can be written as JSON."""

    customer: str
    place: str
    content: Mapping[str, Any]


class Unread(NamedTuple):
    """What may hold something of anybody and cannot be read."""

    place: str
    reason: str


class Doubtful(NamedTuple):
    """Where something stands that is the id of `customer`, or a number or word that looks alike: a
    person has to look."""

    customer: str
    place: str


Found = Iterator[Record | Unread | Doubtful]


class Erased(NamedTuple):
    """How many records of customers who asked for it are gone from `place`, as in `Record`."""

    place: str
    records: int


Forgot = Iterator[Erased | Unread | Doubtful]
"""What went; what a person has to look at stays as it is."""


def is_unmistakable(name: str) -> bool:
    """Whether an id is itself wherever it stands: letters with digits or marks, or many digits.
    ``3`` may be a number of anything, ``mai`` a word."""
    mixed = any(map(str.isalpha, name)) and not name.isalpha()
    return not name.isalpha() and len(name) >= (_SHORT_MIX if mixed else _LONG_NUMBER)


def names_customers(column: str) -> bool:
    """Whether what stands under this name is a customer, or the session of one."""
    return _COLUMN.fullmatch(column.strip()) is not None


@dataclass(frozen=True)
class Sought:
    """The customers that are looked for, by their `ids` in the one spelling, the `sessions` in
    which they, and nobody else, were logged in (session -> customer), and their `pseudonyms`."""

    ids: frozenset[str]
    sessions: Mapping[str, str] = field(default_factory=dict)
    pseudonyms: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, given: Iterable[str | int]) -> "Sought":
        """Raises `InputError` for what is no id."""
        ids = [normalise_id(one) for one in given]
        for one in ids:
            if fault := id_fault(one, "customer"):
                raise InputError(f"{one[:MAX_LENGTH]!r}: {fault}")
        return cls(frozenset(ids))

    @functools.cached_property
    def names(self) -> dict[str, str]:
        """Ids and pseudonyms -> the customer."""
        return {**self.pseudonyms, **{one: one for one in self.ids}}

    @functools.cached_property
    def written(self) -> dict[str, str]:
        """Every way in which texts of ours write one of all these -> the customer."""
        known = {**self.sessions, **self.names}
        return {way: whose for name, whose in known.items() for way in _ways(name)}

    @functools.cached_property
    def pattern(self) -> str:
        """An expression of RE2 that texts match in which `in_text` may find somebody."""
        return rf"(?:^|[^\pL\pN_@+\-])(?:{self._names})"

    def in_text(self, text: str) -> tuple[set[str], set[str]]:
        """Whose ids, sessions or pseudonyms stand in `text`, where no longer one goes on; and
        whose may stand there: they are words or numbers of anything, and nothing names them."""
        surely, perhaps = set[str](), set[str]()
        for found in self._exactly.finditer(text):
            name, before = found[1], text[max(0, found.start() - _BEFORE) : found.start()]
            if is_unmistakable(name) or _NAMED.search(before):
                surely.add(self.written[name])
            elif not _OF_ANOTHER.search(before):
                perhaps.add(self.written[name])
        return surely, perhaps - surely

    def nameless(self, place: str) -> str:
        """A place, or what is wrong there, as registers, alerts and logs may say it: without the
        folders and files that are named like a customer."""
        if not self.written:
            return place
        parts = place.split("/")
        return "/".join("..." if self._in_name.search(_DATE.sub("", one)) else one for one in parts)

    @functools.cached_property
    def by_doubt(self) -> "tuple[Sought, Sought]":
        """Those whose names are unmistakable, and those whose are not."""
        return self._only(sure=True), self._only(sure=False)

    def _only(self, *, sure: bool) -> "Sought":
        return Sought(
            frozenset(one for one in self.ids if is_unmistakable(one) is sure),
            {name: one for name, one in self.sessions.items() if is_unmistakable(name) is sure},
            self.pseudonyms if sure else {},
        )

    @functools.cached_property
    def _exactly(self) -> re.Pattern[str]:
        # Files write whole numbers as floats.
        end = rf"(?:\.0+)?(?!{_INNER}|\.\w)"
        return re.compile(rf"(?<!{_INNER})(?<!\w\.)({self._names}){end}")

    @functools.cached_property
    def _in_name(self) -> re.Pattern[str]:
        return re.compile(rf"(?<![^\W_])(?:{self._names})(?![^\W_])")

    @functools.cached_property
    def _names(self) -> str:
        ways = sorted(self.written, key=len, reverse=True)
        return "|".join(map(re.escape, ways))


@dataclass(frozen=True)
class PersonalData:
    """Something that is kept of customers; `what` people call it, and `why` it is kept. `where` are
    patterns of paths below the state root, behind a ``#`` those of a table; ``**`` are folders of
    any depth. It is `kept` for so long, where ``{days}`` are those of `days`. `find` yields what is
    kept of some customers; None where nothing there leads to anybody. `forget` removes that, once
    or again: it replaces each file as a whole, so that nobody reads half of it, and may die at any
    moment; None where it goes with something else, or is not ours to change."""

    what: str
    where: tuple[str, ...]
    why: str
    kept: str
    find: Callable[[Settings, Sought], Found] | None
    days: Callable[[Settings], float] | None = None
    forget: Callable[[Settings, Sought], Forgot] | None = None

    def kept_in(self, settings: Settings) -> str:
        """How long it is kept as `settings` configure it. Raises `ConfigError`."""
        return self.kept if self.days is None else self.kept.format(days=f"{self.days(settings):g}")

    def covers(self, place: str) -> bool:
        """Whether a `place` as in `Record` is one of `where`."""
        return any(_fits(place, pattern) for pattern in self.where)


def files_at(settings: Settings, *patterns: str) -> list[Path]:
    """The files below the state root that patterns as in `PersonalData.where` name, links left out;
    hidden ones are what writers that died left."""
    found = {path for one in patterns for path in settings.home.glob(one.partition("#")[0])}
    return sorted(path for path in found if path.is_file() and not path.is_symlink())


def place_of(settings: Settings, path: Path, table: str = "") -> str:
    """How `Record` names a file; one outside of the state root by its whole path."""
    inside = path.is_relative_to(settings.home)
    name = path.relative_to(settings.home).as_posix() if inside else str(path)
    return f"{name}#{table}" if table else name


def is_outside(settings: Settings, place: str) -> bool:
    """Whether a `place` lies outside of the state root, be it behind a link: what is there belongs
    to somebody else, and is not changed."""
    path = settings.home / place.partition("#")[0]
    return not path.resolve().is_relative_to(settings.home.resolve())


def _fits(place: str, pattern: str) -> bool:
    file, _, table = place.partition("#")
    files, _, tables = pattern.partition("#")
    if table and tables and table != tables:
        return False
    return _path_fits(file.split("/"), files.split("/"))


def _path_fits(parts: list[str], patterns: list[str]) -> bool:
    """Whether a path fits a pattern, as `Path.glob` sees it."""
    if not patterns:
        return not parts
    if patterns[0] == "**":
        return any(_path_fits(parts[at:], patterns[1:]) for at in range(len(parts) + 1))
    return (
        bool(parts) and fnmatchcase(parts[0], patterns[0]) and _path_fits(parts[1:], patterns[1:])
    )


def _ways(name: str) -> set[str]:
    """As it is, in decomposed letters, and as Python, JSON and addresses of pages write these; a
    long number also as spreadsheets do."""
    found = set[str]()
    if name.isdecimal() and is_unmistakable(name):
        rest = name[1:].rstrip("0")
        number = f"{name[0]}.{rest}" if rest else name[0]
        found |= {f"{number}{power}+{len(name) - 1}" for power in "eE"}
    for form in ("NFC", "NFD"):
        one = unicodedata.normalize(form, name)
        as_json = (json.dumps(one, ensure_ascii=plain)[1:-1] for plain in (True, False))
        found |= {one, repr(one)[1:-1], urllib.parse.quote(one, safe=""), *as_json}
    return found
