"""The languages of the monitor's pages, and which of them a visit is answered in."""

from collections.abc import Mapping
from datetime import tzinfo
from pathlib import Path
from typing import Final

from recsys import language
from recsys.language import LANGUAGES, read_texts

__all__ = ["LANGUAGES", "Language", "preferred", "texts"]

_FOLDER: Final = Path(__file__).parent / "texts"


class Language(language.Language):
    """How one language says things on these pages; times are shown in `zone`."""

    def __init__(self, code: str, zone: tzinfo) -> None:
        super().__init__(code, zone, texts(code))


def texts(code: str) -> Mapping[str, str]:
    """The texts of a language by name."""
    return read_texts(_FOLDER, code)


def preferred(cookie: str | None, accepted: str) -> str:
    """The code of the language to answer in: what was chosen, else what the browser asks for first
    (``Accept-Language``), else Vietnamese."""
    if cookie in LANGUAGES:
        return cookie
    asked = (part.split(";")[0].strip().lower()[:2] for part in accepted.split(","))
    return next((code for code in asked if code in LANGUAGES), "vi")
