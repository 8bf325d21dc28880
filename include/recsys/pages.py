"""Templates of pages and mails: what others wrote is never markup in them, and a name that nothing
was given for is an error."""

import re
from pathlib import Path
from typing import Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from recsys.language import Language
from recsys.sentences import Kind, tell

_CODE: Final = re.compile(r"`([^`]+)`")
_MARKED: Final = Markup("{}"), Markup("<code>{}</code>")
_MARKS: Final = {
    Kind.TOLD: Markup("{}"),
    Kind.NAME: Markup('<span translate="no">{}</span>'),
    Kind.FOREIGN: Markup('<span lang="en" translate="no">{}</span>'),
}


def templates(*folders: Path) -> Environment:
    """The templates in `folders`; in all but ``*.txt`` what is filled in is escaped. Their filter
    ``told`` says in the language of the page what was said in English."""
    environment = Environment(
        loader=FileSystemLoader(folders),
        autoescape=select_autoescape(disabled_extensions=("txt",), default=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["told"] = _told
    return environment


def _told(
    text: object, language: Language, most: int | None = None, *, own: bool = False
) -> Markup:
    """Of at most so many characters; names and what stays English are marked as such. What is not
    known may be somebody's `own` words, in whatever language."""
    shown, left = Markup(), most
    for piece in tell(str(text), language):
        cut = left is not None and len(piece.text) > left
        kind = Kind.NAME if own and piece.kind is Kind.FOREIGN else piece.kind
        said = piece.text[:left] + "…" if cut else piece.text
        parts = _CODE.split(said)  # every second one stood between backquotes
        marked = (_MARKED[n % 2].format(part) for n, part in enumerate(parts))
        shown += _MARKS[kind].format(Markup().join(marked))
        if cut:
            break
        left = None if left is None else left - len(piece.text)
    return shown
