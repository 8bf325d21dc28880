"""What the product said in English, told in the language of a page.

Jobs, checks and the service give their reasons in English: once, for whoever reads them later. The
catalogue has those sentences with blanks, and what each is in the other language; a stored one is
recognised by it, so that old records can be told as well. Where it can be read in several ways, the
one counts that explains most of it. Anybody's words can stand in a blank, so that recognising takes
no longer for odd ones: a regular expression with as many blanks would take minutes."""

import re
from collections.abc import Iterable, Iterator
from enum import StrEnum
from functools import cache
from itertools import groupby
from pathlib import Path
from string import Formatter
from typing import Final, NamedTuple

from recsys.language import DASH, Language, read_texts

CATALOGUES: Final = Path(__file__).parent / "texts"
"""The folder of the catalogues: ``vi.json`` has English sentences with what they are there."""
FOREIGN: Final = "error"
"""The blank that holds another program's words; ours count there as a whole only."""
REASONS: Final = frozenset({FOREIGN, "because", "fault", "problem", "problems", "reason", "why"})
"""Blanks that hold sentences: what is not known there is English and no name."""
STORED: Final = (Path(__file__).parent / "experiments" / "texts",)
"""Folders of texts in both languages, of which some English ones are stored, too."""
LONGEST: Final = 2_000
"""Characters of a text that is looked at; a longer one is nobody's sentence."""

# Between sentences that were put together; what stands before the last may also be a name.
_JOINTS: Final = ("\n", "; ")
_AFTER_A_NAME: Final = ": "
_MOST_JOINTS: Final = 11
_DEEPEST: Final = 6  # sentences in sentences
_STORED_KINDS: Final = ("why.", "metric.")
_DAY: Final = re.compile(r"\d{4}-\d\d-\d\d")
_ZONE: Final = re.compile(r" ([+-]\d\d(?::?\d\d)?)$")
_NUMBER: Final = re.compile(r"[+-]?[\d,.]+%?")


class Kind(StrEnum):
    """What a part of a text is."""

    TOLD = "told"
    """In the language that was asked for."""
    NAME = "name"
    """What has no language: an id, a file, a value."""
    FOREIGN = "foreign"
    """English that the catalogue does not know."""


class Piece(NamedTuple):
    """A part of a text."""

    text: str
    kind: Kind


class _Sentence(NamedTuple):
    """How a sentence begins, its blanks, each with what stands behind it, and what it is called."""

    beginning: str
    blanks: tuple[tuple[str, str], ...]
    told: str


def tell(text: str, language: Language) -> list[Piece]:
    """`text` in `language`, whole sentences of it or parts; English stays what is not known."""
    if language.code == "en":
        return [Piece(text, Kind.TOLD)]
    found = _Reader(language).read(text) if len(text) <= LONGEST else None
    said = groupby((one for one in found or [_unknown(text)] if one.text), lambda one: one.kind)
    return [Piece("".join(one.text for one in group), kind) for kind, group in said]


class _Reader:
    """Reads one text; what it has read once it knows."""

    def __init__(self, language: Language) -> None:
        self._language = language
        self._read: dict[tuple[str, int], list[Piece] | None] = {}

    def read(self, text: str, depth: int = 0) -> list[Piece] | None:
        """None for what the catalogue does not know; `depth` sentences are around it."""
        if depth == _DEEPEST:
            return None
        joined = (self._joined(text.split(joint, _MOST_JOINTS), joint, depth) for joint in _JOINTS)
        return _best(one for one in (*joined, self._single(text, depth)) if one)

    def _joined(self, parts: list[str], joint: str, depth: int) -> list[Piece] | None:
        """Of sentences that were put together, some with the same joint inside."""
        if len(parts) == 1:
            return None
        known, rest = False, list[list[Piece]]([[]])  # what the last 0, 1, 2 ... parts say
        for begin in range(len(parts) - 1, -1, -1):
            found = [[_unknown(parts[begin]), *rest[-1]]]
            for end in range(begin + 1, len(parts) + (begin > 0)):
                if told := self._single(joint.join(parts[begin:end]), depth):
                    found.append([*told, *rest[len(parts) - end]])
                    known = True
            rest.append([Piece(joint, Kind.TOLD), *min(found, key=_unexplained)])
        return rest[-1][1:] if known else None

    def _single(self, text: str, depth: int) -> list[Piece] | None:
        """Of one sentence, which a name may stand before."""
        place = text, depth
        if place not in self._read:
            self._read[place] = _best(self._readings(text, depth + 1))
        return self._read[place]

    def _readings(self, text: str, depth: int) -> Iterator[list[Piece]]:
        for sentence in _sentences(self._language.code):
            blanks = _blanks_of(sentence, text)
            if blanks is not None:
                yield list(self._filled(sentence.told, blanks, depth))
        if text.endswith(".") and (told := self.read(text[:-1], depth)):
            yield [*told, Piece(".", Kind.TOLD)]
        name, between, rest = text.partition(_AFTER_A_NAME)
        if between and (told := self.read(rest, depth)):
            known = self.read(name, depth) if " " in name else None
            yield [*(known or [Piece(name, Kind.NAME)]), Piece(between, Kind.TOLD), *told]

    def _filled(self, told: str, blanks: dict[str, str], depth: int) -> Iterator[Piece]:
        for literal, name, form, _ in Formatter().parse(told):
            yield Piece(literal, Kind.TOLD)
            if name is None:
                continue
            value = blanks[name]
            written = _written(value, form, self._language) if form else None
            if written is not None:
                yield Piece(written, Kind.TOLD)
            else:
                known = self._of_a_blank(value, name, form, depth)
                yield from known or [
                    _unknown(value) if name in REASONS else Piece(value, Kind.NAME)
                ]

    def _of_a_blank(
        self, value: str, name: str, form: str | None, depth: int
    ) -> list[Piece] | None:
        """A sentence. One word is somebody's name (a placement is called ``product``), but where
        the catalogue says that it is a word of ours."""
        if form != "word" and " " not in value:
            return None
        known = self.read(value, depth)
        if name == FOREIGN and known and not all(map(_is_ours, known)):
            return None
        return known


def _best(readings: Iterable[list[Piece]]) -> list[Piece] | None:
    return min(readings, key=_unexplained, default=None)


def _unexplained(pieces: list[Piece]) -> int:
    """How much was not recognised, in characters."""
    return sum(len(one.text) for one in pieces if one.kind is not Kind.TOLD)


def _is_ours(piece: Piece) -> bool:
    return piece.kind is Kind.TOLD or _are_names(piece.text)


def _unknown(text: str) -> Piece:
    """Names, or English."""
    return Piece(text, Kind.NAME if _are_names(text) else Kind.FOREIGN)


def _are_names(text: str) -> bool:
    """One, or several with commas between them."""
    return " " not in text.replace(", ", "")


def _written(value: str, form: str, language: Language) -> str | None:
    """A number, a day or a moment in the form of the language; None for what is none."""
    if form == "number":
        return language.written(value) if _NUMBER.fullmatch(value) else None
    if form not in ("day", "moment"):
        return None
    if form == "day" or _DAY.fullmatch(value):
        shown = language.day(value)
    else:  # as people write it: with a blank before the zone
        shown = language.moment(_ZONE.sub(r"\1", value.replace(" UTC", "Z")))
    return None if shown == DASH else shown


def _blanks_of(sentence: _Sentence, text: str) -> dict[str, str] | None:
    """What stands in the blanks, if `text` is that sentence."""
    if not text.startswith(sentence.beginning):
        return None
    at, found = len(sentence.beginning), dict[str, str]()
    for number, (name, behind) in enumerate(sentence.blanks, start=1):
        last = number == len(sentence.blanks)
        end = len(text) - len(behind) if last else text.find(behind, at + 1)
        if end <= at or not text.startswith(behind, end):
            return None
        if found.setdefault(name, text[at:end]) != text[at:end]:
            return None
        at = end + len(behind)
    return found if at == len(text) else None


@cache
def _sentences(code: str) -> list[_Sentence]:
    known = dict(read_texts(CATALOGUES, code))
    for folder in STORED:
        here = read_texts(folder, code)
        for name, said in read_texts(folder, "en").items():
            if name.startswith(_STORED_KINDS):
                known[said] = re.sub(r"\{(\w+)\}", r"{\1:number}", here[name])
    return [_sentence(said, told) for said, told in known.items()]


def _sentence(said: str, told: str) -> _Sentence:
    names, between = list[str](), [""]
    for literal, name, *_ in Formatter().parse(said):
        between[-1] += literal
        if name is not None:
            names.append(name)
            between.append("")
    beginning, *rest = between
    return _Sentence(beginning, tuple(zip(names, rest, strict=True)), told)
