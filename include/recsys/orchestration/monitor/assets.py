"""Style, scripts and the chart library of the pages, as they lie in this package."""

import hashlib
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

_FOLDER: Final = Path(__file__).parent / "static"
_KINDS: Final = {".css": "text/css", ".js": "text/javascript"}


class Asset(NamedTuple):
    """A file for browsers; `version` changes with its content."""

    content: bytes
    media_type: str
    version: str


@cache
def assets() -> dict[str, Asset]:
    """All of them by name: a name in a request is looked up here and never opened."""
    found = {}
    for path in sorted(_FOLDER.iterdir()):
        if path.suffix in _KINDS:
            content = path.read_bytes()
            version = hashlib.sha256(content).hexdigest()[:12]
            found[path.name] = Asset(content, f"{_KINDS[path.suffix]}; charset=utf-8", version)
    return found
