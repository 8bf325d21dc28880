"""The heavy steps of a refresh on Spark: read, bring users together, build.

The steps hand over files of the run's work folder, and none has all rows in memory: raw files are
read in pieces, users are dealt into ranges of the hash of their id (the order of
`recsys.data.keys`), and a range goes through the functions that the whole view goes through without
Spark. The driver holds 8 bytes a row, and the users, products and matrix of the new version.
"""

import contextlib
import functools
import itertools
import json
import shutil
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import feather

from recsys import schema
from recsys.arrays import UInt64Array
from recsys.config import load_config
from recsys.data.cleaning import CleanRows, Limits, read_settled, settle_files
from recsys.data.config import DataConfig
from recsys.data.dataset import Dataset, build_part, join_parts
from recsys.data.engine import View, read_frame, read_view
from recsys.data.keys import EVENT_KEY, KEY, USER_KEY, USER_NUMBER, latest_rows
from recsys.data.reading import FILE, ROW
from recsys.data.sources import ReviewFiles, Source
from recsys.data.writing import VersionFiles
from recsys.errors import SourceError
from recsys.publishing import atomic_path
from recsys.settings import Settings
from recsys.spark.parts import read_entries, write_entries
from recsys.spark.pieces import Piece, cut
from recsys.spark.session import SparkConfig, as_literal, session_folder, spark_session

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

ROWS_FOLDER = "rows"
REJECTED_FOLDER = "rejected"
PIECES_FOLDER = "pieces"
RANGES_FOLDER = "ranges"
PARTS_FOLDER = "parts"

PIECE_BYTES = 64_000_000
"""Size of the pieces in which raw files are read. A worker takes some eight times that."""
ROWS_PER_RANGE = 500_000
"""Rows of a range of users; one worker has one range in memory at a time."""

_KEYS = (USER_KEY, EVENT_KEY, KEY)
_KEY_BITS = 64


@contextlib.contextmanager
def open_spark_engine(
    settings: Settings, config: DataConfig, work: Path
) -> Iterator["SparkEngine"]:
    """A `recsys.data.engine.RefreshEngine` with a session that ends with the block, for a run with
    the work folder `work`. Raises `SparkError` if there is no Java or no PySpark."""
    spark = load_config(settings, SparkConfig)
    with spark_session(spark, session_folder(work)) as session:
        yield SparkEngine(settings, config, spark, session, work)


@dataclass(frozen=True)
class SparkEngine:
    """Work dealt out to Spark's workers, in files below `work`."""

    settings: Settings
    config: DataConfig
    spark: SparkConfig
    session: "SparkSession"
    work: Path

    def read(self, source: Source, limits: Limits) -> View:
        """As the protocol says; of ``view.reviews.accepted`` only the keys are in memory."""
        for name in (ROWS_FOLDER, REJECTED_FOLDER):
            (self.work / name).mkdir(parents=True)
        files = source.config.reviews

        def read_files() -> list[CleanRows]:
            paths = source.review_files
            pieces = _cut_all(paths, self.work / PIECES_FOLDER, files, limits)
            task = functools.partial(_read_pieces, limits=limits, work=self.work, pieces=pieces)
            found = self.session.range(0, len(pieces), 1, len(pieces)).mapInArrow(task, _FOUND)
            summaries = sorted((row.asDict() for row in found.collect()), key=itemgetter("piece"))
            shutil.rmtree(self.work / PIECES_FOLDER, ignore_errors=True)
            return [_join_pieces(path, pieces, summaries, self.work) for path in paths]

        view = read_view(self.settings, self.config, source, limits, read_files)
        for number, part in enumerate(view.arrivals):
            if len(part.accepted):
                path = self.work / ROWS_FOLDER / f"staged-{number:05}.parquet"
                _write_rows(part.accepted, path)
        return view

    def latest(self, view: View, rows: Path) -> int:
        """As the protocol says; each range of users is a record batch of the file."""
        read, ranges = self.work / ROWS_FOLDER, self.work / RANGES_FOLDER
        ranges.mkdir()
        count = len(view.reviews.accepted)
        bits = max(1, (count // ROWS_PER_RANGE).bit_length())
        stored = self.session.read.parquet(as_literal(read))
        # The highest bits of the key: ranges in order hold the users in order.
        dealt = stored.selectExpr("*", f"shiftrightunsigned({USER_KEY}, {_KEY_BITS - bits}) r")

        def write(table: pa.Table) -> pa.Table:
            return _write_range(table, ranges)

        found = dealt.groupBy("r").applyInArrow(write, "user_range long, users long")
        users = {row["user_range"]: row["users"] for row in found.collect()}
        for folder in (read, self.work / REJECTED_FOLDER):
            shutil.rmtree(folder)
        return _join_ranges(ranges, users, rows)

    def build(
        self,
        rows: Path,
        quality: Path,
        catalogue: pd.DataFrame,
        files: VersionFiles,
        purchases: Path | None = None,
    ) -> Dataset:
        """As the protocol says, in parts; the interactions stay on disk."""
        folder = self.work / PARTS_FOLDER
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        with pa.memory_map(str(rows)) as mapped:
            reader = pa.ipc.open_file(mapped)
            lengths = [reader.get_batch(at).num_rows for at in range(reader.num_record_batches)]
        starts = [0, *itertools.accumulate(lengths)]
        task = functools.partial(
            _write_parts,
            view=rows,
            quality=quality,
            starts=starts,
            folder=folder,
            purchases=purchases,
        )
        numbers = self.session.range(0, len(lengths), 1, len(lengths))
        numbers.mapInArrow(task, "part long").collect()
        written = [_part_files(folder, number) for number in range(len(lengths))]
        dataset = join_parts(
            pa.concat_tables(feather.read_table(at, memory_map=True) for at, _, _ in written),
            pd.concat([pd.read_feather(at) for _, at, _ in written], ignore_index=True),
            [read_entries(at) for _, _, at in written],
            catalogue,
        )
        files.add_interactions(dataset.interactions)
        files.add_users(dataset.user_metadata)
        return dataset


_FOUND = (
    "piece long, accepted long, rejected long, later long, forgotten long, columns string, "
    "error string"
)


def _cut_all(
    paths: Sequence[Path], folder: Path, files: ReviewFiles, limits: Limits
) -> list[Piece]:
    shutil.rmtree(folder, ignore_errors=True)
    pieces = []
    for number, path in enumerate(paths):
        try:
            settled = settle_files(path, files, limits)
            pieces += cut(path, folder / f"{number:05}", PIECE_BYTES, settled)
        except (OSError, EOFError, zlib.error, pa.ArrowException) as error:
            raise SourceError(f"{path}: cannot be read: {error}") from error
    return pieces


def _read_pieces(
    batches: Iterator[pa.RecordBatch], *, limits: Limits, work: Path, pieces: Sequence[Piece]
) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        for number in batch.column(0).to_pylist():
            found = {"piece": number, **_read_piece(number, pieces[number], limits, work)}
            yield pa.RecordBatch.from_pylist([found])


def _read_piece(number: int, piece: Piece, limits: Limits, work: Path) -> dict[str, Any]:
    found: dict[str, Any] = dict.fromkeys(("accepted", "rejected", "later", "forgotten"), 0)
    found |= {"columns": "[]", "error": ""}
    try:
        cleaned = read_settled(piece.path, piece.files, limits)
    except SourceError as error:
        return found | {"error": str(error).replace(str(piece.path), str(piece.original))}
    _write_rows(cleaned.accepted, work / ROWS_FOLDER / f"piece-{number:05}.parquet")
    with atomic_path(_rejected_file(work, number)) as temporary:
        cleaned.rejected.to_feather(temporary)
    return found | {
        "accepted": len(cleaned.accepted),
        "rejected": len(cleaned.rejected),
        "later": cleaned.later,
        "forgotten": cleaned.forgotten,
        "columns": json.dumps(sorted(cleaned.columns)),
    }


def _write_rows(rows: pd.DataFrame, path: Path) -> None:
    """Keys as signed numbers: Spark knows no others."""
    signed = {name: rows[name].to_numpy().view(np.int64) for name in _KEYS}
    with atomic_path(path) as temporary:
        table = pa.Table.from_pandas(rows.assign(**signed), preserve_index=False)
        pq.write_table(table, temporary, use_dictionary=[schema.PRODUCT])


def _rejected_file(work: Path, number: int) -> Path:
    return work / REJECTED_FOLDER / f"{number:05}.feather"


def _join_pieces(
    path: Path, pieces: Sequence[Piece], summaries: Sequence[dict[str, Any]], work: Path
) -> CleanRows:
    """What the pieces of the file `path` say together."""
    rejected: list[pd.DataFrame] = []
    keys: list[UInt64Array] = []
    columns: set[str] = set()
    later = before = forgotten = 0
    for number, (piece, summary) in enumerate(zip(pieces, summaries, strict=True)):
        if piece.original != path:
            continue
        if summary["error"]:
            raise SourceError(summary["error"])
        stored = pq.read_table(work / ROWS_FOLDER / f"piece-{number:05}.parquet", columns=[KEY])
        keys.append(stored[KEY].to_numpy().view(np.uint64))
        bad = pd.read_feather(_rejected_file(work, number))
        bad[ROW] += before if piece.rows_before is None else piece.rows_before
        bad[FILE] = pd.Series(str(path), index=bad.index, dtype="str")
        rejected.append(bad)
        before += summary["accepted"] + len(bad) + summary["later"] + summary["forgotten"]
        forgotten += summary["forgotten"]
        later += summary["later"]
        columns |= set(json.loads(summary["columns"]))
    return CleanRows(
        pd.DataFrame({KEY: np.concatenate(keys)}),
        pd.concat(rejected, ignore_index=True),
        later,
        columns=frozenset(columns),
        forgotten=forgotten,
    )


def _write_range(table: pa.Table, folder: Path) -> pa.Table:
    number = table["r"][0].as_py()
    rows = table.drop_columns(["r"]).to_pandas()
    for name in _KEYS:
        rows[name] = rows[name].to_numpy().view(np.uint64)
    latest = latest_rows(rows)
    with atomic_path(_range_file(folder, number)) as temporary:
        latest.to_feather(temporary, compression="uncompressed")
    users = int(latest[USER_NUMBER].iloc[-1]) + 1
    return pa.table({"user_range": [number], "users": [users]})


def _range_file(folder: Path, number: int) -> Path:
    return folder / f"{number:05}.feather"


def _join_ranges(folder: Path, users: dict[int, int], view: Path) -> int:
    """The files of all ranges as one, with users numbered through."""
    rows = first = 0
    with contextlib.ExitStack() as stack:
        writer: pa.RecordBatchFileWriter | None = None
        for number in sorted(users):
            table = feather.read_table(_range_file(folder, number), memory_map=True)
            at = table.column_names.index(USER_NUMBER)
            numbers = pc.add(table[USER_NUMBER], pa.scalar(first, pa.int32()))
            table = table.set_column(at, USER_NUMBER, numbers).combine_chunks()
            if writer is None:
                writer = stack.enter_context(pa.ipc.new_file(str(view), table.schema))
            writer.write_table(table)
            rows += len(table)
            first += users[number]
    shutil.rmtree(folder)
    return rows


def _part_files(folder: Path, number: int) -> tuple[Path, Path, Path]:
    """Of one range of users: rows and users, feather, and the `Entries`."""
    names = (f"rows-{number:05}.feather", f"users-{number:05}.feather", f"entries-{number:05}.npz")
    rows, users, entries = (folder / name for name in names)
    return rows, users, entries


def _write_parts(
    batches: Iterator[pa.RecordBatch],
    *,
    view: Path,
    quality: Path,
    starts: Sequence[int],
    folder: Path,
    purchases: Path | None,
) -> Iterator[pa.RecordBatch]:
    bought = None if purchases is None else read_frame(purchases)
    for batch in batches:
        for number in batch.column(0).to_pylist():
            with pa.memory_map(str(view)) as mapped:
                rows = pa.ipc.open_file(mapped).get_batch(number).to_pandas()
            rows[USER_NUMBER] -= rows[USER_NUMBER].iloc[0]
            of_rows = np.load(quality, mmap_mode="r")[starts[number] : starts[number + 1]]
            rows[schema.COMMENT_QUALITY] = np.array(of_rows)
            interactions, users, entries = build_part(rows, bought)
            *tables, arrays = _part_files(folder, number)
            for frame, path in zip((interactions, users), tables, strict=True):
                with atomic_path(path) as temporary:
                    table = pa.Table.from_pandas(frame, preserve_index=False)
                    feather.write_feather(table, str(temporary), compression="uncompressed")
            write_entries(entries, arrays)
            yield pa.RecordBatch.from_pydict({"part": [number]})
