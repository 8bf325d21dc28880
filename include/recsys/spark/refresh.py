"""The heavy steps of a refresh on Spark: read, bring users together, build.

Workers read and write files of a `recsys.spark.shelf`, and none has all rows in memory: raw files
are read in pieces, their rows are dealt by user into ranges (`recsys.spark.ranges`), and a range
goes through the functions that the whole view goes through without Spark. The driver has the
products, the matrix and the ids of the new version in memory, and everything else on its disk.
"""

import contextlib
import functools
import itertools
import json
import shutil
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import feather

from recsys import schema
from recsys.arrays import Float32Array
from recsys.config import load_config
from recsys.data.cleaning import CleanRows, Limits, read_settled, settle_files
from recsys.data.config import DataConfig
from recsys.data.dataset import Dataset, build_part, join_parts
from recsys.data.engine import View, read_frame, read_view
from recsys.data.keys import KEY, USER_NUMBER, distinct_keys, latest_rows
from recsys.data.reading import FILE, ROW
from recsys.data.sources import ReviewFiles, Source
from recsys.data.writing import VersionFiles
from recsys.errors import SourceError
from recsys.settings import Settings
from recsys.spark.parts import StoredEntries, write_entries
from recsys.spark.pieces import Piece, cut
from recsys.spark.ranges import deal, dealt_ranges, merge_keys, read_range
from recsys.spark.session import SparkConfig, session_folder, spark_session
from recsys.spark.shelf import Shelf, open_shelf

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

PIECES_FOLDER = "pieces"
KEYS_FILE = "keys.bin"

PIECE_BYTES = 64_000_000
"""Size of the pieces in which raw files are read, and about that of a range of users. A worker
takes some eight times that."""


@contextlib.contextmanager
def open_spark_engine(
    settings: Settings, config: DataConfig, work: Path
) -> Iterator["SparkEngine"]:
    """A `recsys.data.engine.RefreshEngine` with a session that ends with the block, for a run with
    the work folder `work`. Raises `SparkError` if Spark cannot be used."""
    spark = load_config(settings, SparkConfig)
    shelf = open_shelf(settings, spark, work)
    with spark_session(spark, session_folder(work)) as session, contextlib.closing(shelf):
        yield SparkEngine(settings, config, session, work, shelf)


@dataclass(frozen=True)
class SparkEngine:
    """Work dealt out to Spark's workers."""

    settings: Settings
    config: DataConfig
    session: "SparkSession"
    work: Path
    shelf: Shelf

    def read(self, source: Source, limits: Limits) -> View:
        """As the protocol says; of ``view.reviews.accepted`` only the number is in memory."""
        pieces: list[_LentPiece] = []

        def read_files() -> list[CleanRows]:
            pieces.extend(self._cut(source.review_files, source.config.reviews, limits))
            task = functools.partial(
                _read_pieces,
                limits=limits,
                shelf=self.shelf.of_workers,
                pieces=pieces,
                bits=_bits(pieces),
            )
            found = self._deal_out(task, len(pieces), _FOUND)
            self.shelf.drop("lent")
            shutil.rmtree(self.work / PIECES_FOLDER, ignore_errors=True)
            summaries = sorted(found, key=itemgetter("piece"))
            return [
                _join_pieces(path, pieces, summaries, self.shelf) for path in source.review_files
            ]

        view = read_view(self.settings, self.config, source, limits, read_files)
        for number, part in enumerate(view.arrivals):
            _put_rows(self.shelf, f"staged-{number:05}", part.accepted, _bits(pieces))
        kept = [self.shelf.keep(name) for name in self.shelf.names("keys")]
        keys = [np.load(path, mmap_mode="r") for path in kept]
        return replace(view, row_keys=merge_keys(keys, self.work / KEYS_FILE))

    def latest(self, view: View, rows: Path) -> int:
        """As the protocol says; each range of users is a record batch of the file."""
        names = self.shelf.names("rows")
        task = functools.partial(_write_ranges, shelf=self.shelf.of_workers, names=names)
        ranges = dealt_ranges(self.shelf, names[0])
        found = self._deal_out(task, ranges, "user_range long, users long")
        self.shelf.drop("rows")
        users = {row["user_range"]: row["users"] for row in found if row["users"]}
        return _join_ranges(self.shelf, users, rows)

    def build(
        self,
        rows: Path,
        quality: Path,
        catalogue: pd.DataFrame,
        files: VersionFiles,
        purchases: Path | None = None,
    ) -> Dataset:
        """As the protocol says, in parts; the interactions and the users stay on disk."""
        with pa.memory_map(str(rows)) as mapped:
            reader = pa.ipc.open_file(mapped)
            lengths = [reader.get_batch(at).num_rows for at in range(reader.num_record_batches)]
        task = functools.partial(
            _write_parts,
            shelf=self.shelf.of_workers,
            view=self.shelf.lend(rows),
            quality=self.shelf.lend(quality),
            starts=[0, *itertools.accumulate(lengths)],
            purchases=None if purchases is None else self.shelf.lend(purchases),
        )
        self._deal_out(task, len(lengths), "part long")
        written = [
            tuple(self.shelf.keep(name) for name in _part_names(number))
            for number in range(len(lengths))
        ]
        interactions, users = (
            pa.concat_tables(feather.read_table(part[at], memory_map=True) for part in written)
            for at in (0, 1)
        )
        files.add_interactions(interactions)
        files.add_users(users)
        entries = StoredEntries(tuple(part[2] for part in written))
        return join_parts(interactions, users, entries, catalogue)

    def _cut(
        self, paths: Sequence[Path], files: ReviewFiles, limits: Limits
    ) -> Iterator["_LentPiece"]:
        folder = self.work / PIECES_FOLDER
        shutil.rmtree(folder, ignore_errors=True)
        for number, path in enumerate(paths):
            try:
                settled = settle_files(path, files, limits)
                for piece in cut(path, folder / f"{number:05}", PIECE_BYTES, settled):
                    size = piece.path.stat().st_size
                    yield _LentPiece(piece, self.shelf.lend(piece.path), size)
                    if self.shelf.is_in_a_bucket and piece.path != path:
                        piece.path.unlink()
            except (OSError, EOFError, zlib.error, pa.ArrowException) as error:
                raise SourceError(f"{path}: cannot be read: {error}") from error

    def _deal_out(self, task: Any, tasks: int, columns: str) -> list[dict[str, Any]]:
        """What `task` gives of each of the numbers of `tasks`."""
        numbers = self.session.range(0, tasks, 1, tasks)
        return [row.asDict() for row in numbers.mapInArrow(task, columns).collect()]


@dataclass(frozen=True)
class _LentPiece:
    """A piece, its name on the shelf and its size in bytes."""

    piece: Piece
    name: str
    size: int


_FOUND = (
    "piece long, accepted long, rejected long, later long, forgotten long, columns string, "
    "error string"
)


def _bits(pieces: Sequence[_LentPiece]) -> int:
    """The logarithm of the number of ranges: a range is no larger than a piece."""
    size = sum(piece.size for piece in pieces)
    return max(1, max(size // PIECE_BYTES, len(pieces)).bit_length())


def _read_pieces(
    batches: Iterator[pa.RecordBatch],
    *,
    limits: Limits,
    shelf: Shelf,
    pieces: Sequence[_LentPiece],
    bits: int,
) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        for number in batch.column(0).to_pylist():
            found = {"piece": number, **_read_piece(number, pieces[number], limits, shelf, bits)}
            yield pa.RecordBatch.from_pylist([found])


def _read_piece(
    number: int, lent: _LentPiece, limits: Limits, shelf: Shelf, bits: int
) -> dict[str, Any]:
    found: dict[str, Any] = dict.fromkeys(("accepted", "rejected", "later", "forgotten"), 0)
    found |= {"columns": "[]", "error": ""}
    with shelf.local(lent.name) as path:
        try:
            cleaned = read_settled(path, lent.piece.files, limits)
        except SourceError as error:
            return found | {"error": str(error).replace(str(path), str(lent.piece.original))}
    _put_rows(shelf, f"piece-{number:05}", cleaned.accepted, bits)
    with shelf.put(_rejected_name(number)) as path:
        cleaned.rejected.to_feather(path)
    return found | {
        "accepted": len(cleaned.accepted),
        "rejected": len(cleaned.rejected),
        "later": cleaned.later,
        "forgotten": cleaned.forgotten,
        "columns": json.dumps(sorted(cleaned.columns)),
    }


def _put_rows(shelf: Shelf, name: str, rows: pd.DataFrame, bits: int) -> None:
    with shelf.put(f"rows/{name}.arrow") as path:
        deal(rows, path, bits)
    with shelf.put(f"keys/{name}.npy") as path, path.open("wb") as file:
        np.save(file, distinct_keys(rows[KEY].to_numpy()))


def _rejected_name(number: int) -> str:
    return f"rejected/{number:05}.feather"


def _join_pieces(
    path: Path,
    pieces: Sequence[_LentPiece],
    summaries: Sequence[dict[str, Any]],
    shelf: Shelf,
) -> CleanRows:
    """What the pieces of the file `path` say together."""
    rejected: list[pd.DataFrame] = []
    columns: set[str] = set()
    accepted = later = before = forgotten = 0
    for number, (lent, summary) in enumerate(zip(pieces, summaries, strict=True)):
        if lent.piece.original != path:
            continue
        if summary["error"]:
            raise SourceError(summary["error"])
        with shelf.local(_rejected_name(number)) as stored:
            bad = pd.read_feather(stored)
        bad[ROW] += before if lent.piece.rows_before is None else lent.piece.rows_before
        bad[FILE] = pd.Series(str(path), index=bad.index, dtype="str")
        rejected.append(bad)
        before += summary["accepted"] + len(bad) + summary["later"] + summary["forgotten"]
        accepted += summary["accepted"]
        forgotten += summary["forgotten"]
        later += summary["later"]
        columns |= set(json.loads(summary["columns"]))
    return CleanRows(
        pd.DataFrame(index=pd.RangeIndex(accepted)),
        pd.concat(rejected, ignore_index=True),
        later,
        columns=frozenset(columns),
        forgotten=forgotten,
    )


def _write_ranges(
    batches: Iterator[pa.RecordBatch], *, shelf: Shelf, names: Sequence[str]
) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        for number in batch.column(0).to_pylist():
            users = 0
            rows = read_range(shelf, names, number)
            if len(rows):
                latest = latest_rows(rows)
                users = int(latest[USER_NUMBER].iloc[-1]) + 1
                with shelf.put(_range_name(number)) as path:
                    latest.to_feather(path, compression="uncompressed")
            yield pa.RecordBatch.from_pydict({"user_range": [number], "users": [users]})


def _range_name(number: int) -> str:
    return f"ranges/{number:05}.feather"


def _join_ranges(shelf: Shelf, users: dict[int, int], view: Path) -> int:
    """The files of all ranges as one, with users numbered through."""
    rows = first = 0
    with contextlib.ExitStack() as stack:
        writer: pa.RecordBatchFileWriter | None = None
        for number in sorted(users):
            with shelf.take(_range_name(number)) as path:
                table = feather.read_table(path, memory_map=True)
                at = table.column_names.index(USER_NUMBER)
                numbers = pc.add(table[USER_NUMBER], pa.scalar(first, pa.int32()))
                table = table.set_column(at, USER_NUMBER, numbers).combine_chunks()
                if writer is None:
                    writer = stack.enter_context(pa.ipc.new_file(str(view), table.schema))
                writer.write_table(table)
            rows += len(table)
            first += users[number]
    return rows


def _part_names(number: int) -> tuple[str, str, str]:
    """Of one range of users: rows and users, feather, and the `Entries`."""
    name = f"{number:05}"
    return f"parts/rows-{name}.feather", f"parts/users-{name}.feather", f"parts/entries-{name}.npz"


def _write_parts(
    batches: Iterator[pa.RecordBatch],
    *,
    shelf: Shelf,
    view: str,
    quality: str,
    starts: Sequence[int],
    purchases: str | None,
) -> Iterator[pa.RecordBatch]:
    bought = None
    if purchases is not None:
        with shelf.local(purchases) as path:
            bought = read_frame(path)
    for batch in batches:
        for number in batch.column(0).to_pylist():
            with shelf.open(view) as file:
                rows = pa.ipc.open_file(file).get_batch(number).to_pandas()
            rows[USER_NUMBER] -= rows[USER_NUMBER].iloc[0]
            with shelf.open(quality) as file:
                rows[schema.COMMENT_QUALITY] = _cells(file, starts[number], starts[number + 1])
            interactions, users, entries = build_part(rows, bought)
            *tables, arrays = _part_names(number)
            for frame, name in zip((interactions, users), tables, strict=True):
                with shelf.put(name) as path:
                    table = pa.Table.from_pandas(frame, preserve_index=False)
                    feather.write_feather(table, str(path), compression="uncompressed")
            with shelf.put(arrays) as path:
                write_entries(entries, path)
            yield pa.RecordBatch.from_pydict({"part": [number]})


def _cells(file: pa.NativeFile, first: int, end: int) -> Float32Array:
    """Some of the cells of the npy file."""
    np.lib.format.read_magic(file)
    _, _, kind = np.lib.format.read_array_header_1_0(file)
    file.seek(file.tell() + first * kind.itemsize)
    return np.frombuffer(file.read((end - first) * kind.itemsize), kind).astype(np.float32)
