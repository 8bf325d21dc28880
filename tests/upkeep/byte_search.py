"""Searches all bytes of a folder for texts, also inside what is packed."""

import gzip
import io
import json
import sqlite3
import tarfile
import tempfile
import unicodedata
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq

from recsys.errors import InputError
from recsys.served_lists import read_segment


def search(folder: Path, texts: Iterable[str]) -> dict[str, set[str]]:
    """Where below `folder` each of the `texts` stands: {path relative to it: texts}. Names count as
    content; of SQLite the tables and columns are named behind the path."""
    forms = {text: spellings(text) for text in texts}
    found: dict[str, set[str]] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        pieces = [("", name.encode())]
        if path.is_symlink() or path.is_file():
            pieces += _unpacked(path)
        for inner, content in pieces:
            here = {text for text, ways in forms.items() if any(way in content for way in ways)}
            if here:
                found.setdefault(name + inner, set()).update(here)
    return found


def spellings(text: str) -> set[bytes]:
    """A text as files may write it."""
    composed = {unicodedata.normalize(form, text) for form in ("NFC", "NFD")}
    ways = composed | {json.dumps(one)[1:-1] for one in composed} | {repr(text)[1:-1]}
    ways |= {quote(one, safe="") for one in composed}
    if text.isdigit():
        ways |= {f"{text[0]}.{text[1:]}{power}{len(text) - 1}" for power in ("E+", "e+")}
    return {way.encode() for way in ways} | {
        way.encode(form) for way in ways for form in ("utf-16-le", "utf-32-le")
    }


def _unpacked(path: Path) -> Iterator[tuple[str, bytes]]:
    if path.is_symlink():
        yield "", str(path.readlink()).encode()
        return
    content = path.read_bytes()
    yield "", content
    yield from _inside(path.name, content)


def _inside(name: str, content: bytes) -> Iterator[tuple[str, bytes]]:
    """What is packed in the content of a file."""
    if content.startswith(b"\x1f\x8b"):
        inner = gzip.decompress(content)
        yield "", inner
        yield from _inside(name.removesuffix(".gz"), inner)
    elif content.startswith(b"PAR1") and content[4:].endswith(b"PAR1"):  # else one was killed
        file = pq.ParquetFile(io.BytesIO(content))
        yield "", _text_of(file.read().to_pylist())
        yield "", str(file.metadata.metadata).encode()
    elif content.startswith(b"ARROW1"):
        yield "", _text_of(pa.ipc.open_file(io.BytesIO(content)).read_all().to_pylist())
    elif content.startswith(b"SQLite format 3"):
        yield from _tables(content)
    elif name.endswith(".lists"):
        yield "", _segment(content)
    else:
        for one, inner in _members(content):
            yield "", one.encode() + b"\n" + inner
            yield from _inside(one, inner)


def _members(content: bytes) -> Iterator[tuple[str, bytes]]:
    """The files of an archive."""
    if content.startswith(b"PK"):
        with zipfile.ZipFile(io.BytesIO(content)) as packed:
            yield from ((one, packed.read(one)) for one in packed.namelist())
    elif content[257:262] == b"ustar":
        with tarfile.open(fileobj=io.BytesIO(content)) as tar:
            for member in tar.getmembers():
                file = tar.extractfile(member) if member.isfile() else None
                yield member.name, file.read() if file else member.linkname.encode()


def _tables(content: bytes) -> Iterator[tuple[str, bytes]]:
    with tempfile.NamedTemporaryFile(suffix=".db") as copy:
        copy.write(content)
        copy.flush()
        connection = sqlite3.connect(f"file:{copy.name}?mode=ro&immutable=1", uri=True)
        tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        for (table,) in tables.fetchall():
            cursor = connection.execute(f'SELECT * FROM "{table}"')
            names = [column[0] for column in cursor.description]
            for values in zip(*cursor.fetchall(), strict=True):
                yield f":{table}.{names.pop(0)}", "\n".join(map(str, values)).encode()
        connection.close()


def _segment(content: bytes) -> bytes:
    with tempfile.NamedTemporaryFile(suffix=".lists") as copy:
        copy.write(content)
        copy.flush()
        try:
            return str(read_segment(Path(copy.name)).blocks).encode()
        except (InputError, zlib.error):
            return b""


def _text_of(rows: list[dict[str, object]]) -> bytes:
    return json.dumps(rows, default=str, ensure_ascii=False).encode("utf-8", "surrogatepass")
