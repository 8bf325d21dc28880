"""Templates of pages and mails: what others wrote is never markup in them, and a name that nothing
was given for is an error."""

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape


def templates(*folders: Path) -> Environment:
    """The templates in `folders`; in all but ``*.txt`` what is filled in is escaped."""
    return Environment(
        loader=FileSystemLoader(folders),
        autoescape=select_autoescape(disabled_extensions=("txt",), default=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
