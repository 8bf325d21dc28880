"""Raw files cut into pieces that can be read by themselves, each a file of the same kind.

A CSV file is cut only where a record begins: at the end of a line, outside quotes, before a line
that is a whole record by itself. Where a quote never closes there is no such place; the piece then
ends before the next line that is a whole record, where `recsys.data.dialects` goes on as well. So a
piece says the same by itself as it does within its file.
"""

import gzip
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

import pyarrow as pa
import pyarrow.parquet as pq

from recsys.data.dialects import MAX_LINE_CHARACTERS
from recsys.data.sources import ReviewFiles

_LINE_END = b"\n"
# After so many lines without a place outside quotes, a quote is taken for one that never closes.
_LINES_TO_LOOK_AT = 2_000
_BATCH_ROWS = 65_536


@dataclass(frozen=True)
class Piece:
    """Part of the raw file `original` at `path`, which is that file itself if it was not cut.

    `files` says how it is written, with nothing left open. `rows_before` is the number of rows of
    the original before this piece; None if that is the number of those that the pieces before it
    have.
    """

    path: Path
    original: Path
    files: ReviewFiles
    rows_before: int | None = 0


def cut(path: Path, folder: Path, piece_bytes: int, files: ReviewFiles) -> Iterator[Piece]:
    """Cut `path` into pieces of about `piece_bytes` in the new `folder`, one at a time.

    A file that is smaller stays where it is, and so does one whose encoding hides line ends or that
    escapes its quotes. Raises what opening and reading the file raises.
    """
    packed = path.suffix == ".gz"
    suffix = Path(path.name.removesuffix(".gz")).suffix.lower()
    plain = "\n".encode(files.encoding) == _LINE_END and not files.escape
    if not plain or (not packed and path.stat().st_size <= piece_bytes):
        yield Piece(path, path, files)
        return
    folder.mkdir(parents=True)
    if suffix == ".parquet":
        yield from _cut_parquet(path, folder, piece_bytes, files)
        return
    with cast("IO[bytes]", gzip.open(path) if packed else path.open("rb")) as file:
        if suffix == ".jsonl":
            yield from _cut_lines(path, file, folder, piece_bytes, files)
        else:
            yield from _cut_csv(path, file, folder, piece_bytes, files)


def _cut_parquet(path: Path, folder: Path, piece_bytes: int, files: ReviewFiles) -> Iterator[Piece]:
    source = pq.ParquetFile(path)
    rows_at_once = max(1, piece_bytes * source.metadata.num_rows // path.stat().st_size)
    rows = 0
    for batch in source.iter_batches(batch_size=rows_at_once):
        piece = Piece(folder / f"{rows:012}.parquet", path, files, rows)
        pq.write_table(pa.Table.from_batches([batch]), piece.path)
        rows += len(batch)
        yield piece


def _cut_lines(
    path: Path, file: IO[bytes], folder: Path, piece_bytes: int, files: ReviewFiles
) -> Iterator[Piece]:
    lines = 0
    while block := file.read(piece_bytes):
        piece = Piece(folder / f"{lines:012}.jsonl", path, files, lines)
        with piece.path.open("wb") as target:
            target.write(block)
            if not block.endswith(_LINE_END):
                _copy_line(file, target)
                lines += 1
        lines += block.count(_LINE_END)
        yield piece


def _cut_csv(
    path: Path, file: IO[bytes], folder: Path, piece_bytes: int, files: ReviewFiles
) -> Iterator[Piece]:
    quote = files.quote.encode()
    titles = b"".join(file.readline(MAX_LINE_CHARACTERS) for _ in range(files.skip_lines or 0))
    header = file.readline(MAX_LINE_CHARACTERS)
    if header.count(quote) % 2 or not header.endswith(_LINE_END):
        yield Piece(path, path, files)  # nothing to go by
        return
    columns = len(files.fields_of(header.decode(files.encoding, "replace")))
    number, first = 0, b""
    while block := first + file.read(piece_bytes):
        piece = Piece(folder / f"{number:05}.csv", path, files, None)
        with piece.path.open("wb") as target:
            target.write(titles + header)  # titles too: they count where rows are numbered
            target.write(block)
            quotes = block.count(quote)
            if not block.endswith(_LINE_END):
                quotes += _copy_line(file, target, quote)
            first = _copy_to_next_record(file, target, quotes, columns, files)
        number += 1
        yield piece


def _copy_to_next_record(
    file: IO[bytes], target: IO[bytes], quotes: int, columns: int, files: ReviewFiles
) -> bytes:
    """Copy the lines before the next record; its first line, or nothing at the end of the file."""
    looked_at, quote = 0, files.quote.encode()
    while line := file.readline(MAX_LINE_CHARACTERS):
        whole = len(files.fields_of(line.decode(files.encoding, "replace"))) == columns
        if whole and (quotes % 2 == 0 or looked_at >= _LINES_TO_LOOK_AT):
            return line
        target.write(line)
        quotes += line.count(quote)
        if not line.endswith(_LINE_END):
            quotes += _copy_line(file, target, quote)
        looked_at += 1
    return b""


def _copy_line(file: IO[bytes], target: IO[bytes], quote: bytes = b'"') -> int:
    """Copy to the end of the line, however far that is; the number of its quotes."""
    quotes = 0
    while part := file.readline(MAX_LINE_CHARACTERS):
        target.write(part)
        quotes += part.count(quote)
        if part.endswith(_LINE_END):
            break
    return quotes
