"""What a file is, told by its bytes before its name, and what is in packed ones."""

import bz2
import codecs
import contextlib
import gzip
import io
import lzma
import mmap
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Final

UTF8: Final = "utf-8-sig"
Content = bytes | mmap.mmap

NAMES_OF_TEXT: Final = (
    *(".log", ".csv", ".tsv", ".txt", ".json", ".jsonl", ".ndjson"),
    *(".html", ".xml", ".yaml", ".md", ".eml"),
)
"""Texts of which a line may go; of all others a person has to see what a line is."""
_NAMES_OF_TABLES: Final = (".csv", ".tsv", ".txt")
_GZIP: Final = b"\x1f\x8b"
_UNPACKED_BY: Final[dict[bytes, Any]] = {
    _GZIP: gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\0": lzma.open,
}
_OPAQUE: Final = (
    *(b"7z\xbc\xaf\x27\x1c", b"Rar!", b"\x28\xb5\x2f\xfd", b"\x04\x22\x4d\x18"),
    *(b"%PDF", b"\xd0\xcf\x11\xe0", b"\x89HDF", b"ORC", b"Obj\x01"),
)
"""7z, rar, zstd, lz4, PDF, old workbooks, HDF5, ORC and Avro: texts there are packed."""
PACKED: Final = (*_UNPACKED_BY, *_OPAQUE, b"PK\x03\x04", b"PAR1", b"ARROW1")
_HEAD_BYTES: Final = 64 << 10
_BLOCK_BYTES: Final = 16 << 20
_LARGEST_CONTENT: Final = 256 << 20  # bytes of one packed file
_TAR: Final = slice(257, 262)


def is_text(path: Path) -> bool:
    """Whether a file is read as lines, packed by gzip or not: its name says so, or no byte of its
    beginning is zero. Raises `OSError`."""
    head = head_of(path)
    if head.startswith(PACKED):
        return head.startswith(_GZIP) and path.suffix == ".gz" and is_named_text(path)
    return is_named_text(path) or (b"\0" not in head and bool(head)) or is_wide(path)


def is_named_text(path: Path) -> bool:
    """Whether the name, in small or capital letters, says that lines of it may go."""
    name = path.name.lower()
    return name.removesuffix(".gz").endswith(NAMES_OF_TEXT) or ".log." in name


def may_be_table(path: Path) -> bool:
    """Whether a text may have columns with a header. Raises `OSError`."""
    return path.name.lower().removesuffix(".gz").endswith(_NAMES_OF_TABLES) and is_text(path)


def encoding_of(path: Path) -> str:
    """How the characters of a text are written: by the mark before them UTF-16 or UTF-32, else
    UTF-8. Raises `OSError`."""
    head = head_of(path)
    if head.startswith((b"\xff\xfe\0\0", b"\0\0\xfe\xff")):
        return "utf-32"
    return "utf-16" if head.startswith((b"\xff\xfe", b"\xfe\xff")) else UTF8


def is_wide(path: Path) -> bool:
    """Whether the characters of a text have more than one byte each. Raises `OSError`."""
    return encoding_of(path) != UTF8


def head_of(path: Path) -> bytes:
    """The first bytes of a file. Raises `OSError`."""
    with path.open("rb") as file:
        return file.read(_HEAD_BYTES)


def opened(path: Path) -> IO[bytes]:
    """A file to be read, unpacked if its name ends in ``.gz``. Raises `OSError`."""
    return gzip.open(path) if path.suffix == ".gz" else path.open("rb")  # type: ignore[return-value]


def blocks_of(path: Path) -> Iterator[bytes]:
    """The content of a text, unpacked and as UTF-8, in blocks of whole lines. Raises `ValueError`
    where it is packed otherwise than its name says."""
    if not is_text(path) and head_of(path).startswith(PACKED):
        raise ValueError("it is packed, and not by gzip")
    rest, encoding = b"", encoding_of(path)
    with opened(path) as packed:
        file: Any = packed
        if encoding != UTF8:
            file = codecs.EncodedFile(packed, "utf-8", encoding, "replace")
        while block := file.read(_BLOCK_BYTES):
            content, newline, after = (rest + block).rpartition(b"\n")
            if newline:
                yield content
            rest = after
    if rest:
        yield rest


def contents(path: Path) -> Iterator[Content]:
    """The bytes of a file, or of those that are packed in it by zip, gzip, bzip2, xz and tar.
    Raises `ValueError` where they cannot be searched, and what unpacking raises."""
    head = head_of(path)
    unpacks = next((how for mark, how in _UNPACKED_BY.items() if head.startswith(mark)), None)
    if zipfile.is_zipfile(path):
        yield from _of_zip(path)
    elif unpacks is not None:
        with unpacks(path) as file:
            first = file.read(512)
        with unpacks(path) as file:
            if first[_TAR] == b"ustar":
                yield from _of_tar(file)
            else:
                yield _read(file, path.name)
    elif head[_TAR] == b"ustar":
        with path.open("rb") as file:
            yield from _of_tar(file)
    elif head.startswith(_OPAQUE):
        raise ValueError("what is in a file of this kind cannot be searched")
    elif head:
        with (
            path.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
        ):
            yield content


def text_in(content: Content) -> str | None:
    """The text that a packed file is, None if it is none."""
    if not isinstance(content, bytes) or b"\0" in content[:_HEAD_BYTES]:
        return None
    with contextlib.suppress(UnicodeDecodeError):
        return content.decode(UTF8)
    return None


def _of_zip(path: Path) -> Iterator[bytes]:
    with zipfile.ZipFile(path) as packed:
        for member in packed.infolist():
            if member.flag_bits & 1:
                raise ValueError(f"{member.filename} needs a password")
            with packed.open(member) as file:
                yield _read(file, member.filename)


def _of_tar(file: Any) -> Iterator[bytes]:
    with tarfile.open(fileobj=file, mode="r:") as packed:
        for member in packed:
            if (content := packed.extractfile(member) if member.isfile() else None) is not None:
                yield _read(content, member.name)


def _read(file: IO[bytes] | io.BufferedIOBase, name: str) -> bytes:
    content = file.read(_LARGEST_CONTENT + 1)
    if len(content) > _LARGEST_CONTENT:
        raise ValueError(f"{name} is too large to be unpacked")
    if content.startswith(PACKED):
        raise ValueError(f"{name} is packed in a packed file and cannot be searched")
    return content
