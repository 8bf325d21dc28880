"""The heavy steps of a refresh on Spark: read, bring users together, build.

The steps hand over files of the run's work folder, as without Spark, and none of them has all rows
in memory: raw files are read in pieces, users are dealt into ranges of the hash of their id (the
order of `recsys.data.events`), and a range goes through the functions that the whole view goes
through without Spark. What the driver holds is 8 bytes a row, and the users, products and
matrix of the new version.
"""

import contextlib
import functools
import itertools
import json
import shutil
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import feather

from recsys import schema
from recsys.config import load_config
from recsys.data.cleaning import CleanRows, clean_rows
from recsys.data.config import DataConfig
from recsys.data.dataset import Dataset, build_part, join_parts
from recsys.data.events import EVENT_KEY, KEY, USER_KEY, USER_NUMBER, Keys, latest_rows
from recsys.data.plan import View
from recsys.data.plan import read_view as read_view_with
from recsys.data.reading import FILE, ROW, read_rows
from recsys.data.sources import ReviewFiles, Source
from recsys.errors import SourceError
from recsys.publishing import atomic_path
from recsys.settings import Settings
from recsys.spark.config import SparkConfig
from recsys.spark.parts import read_entries, write_entries
from recsys.spark.pieces import Piece, cut
from recsys.spark.session import session_folder, spark_session

ROWS_FOLDER = "rows"
REJECTED_FOLDER = "rejected"
PIECES_FOLDER = "pieces"
RANGES_FOLDER = "ranges"
PARTS_FOLDER = "parts"

_KEYS = (USER_KEY, EVENT_KEY, KEY)
_KEY_BITS = 64


def read_view(
    settings: Settings,
    source: Source,
    config: DataConfig,
    work: Path,
    *,
    as_of: datetime,
    now: datetime,
) -> View:
    """`recsys.data.plan.read_view`, with the accepted rows in files of `work`.

    Of ``view.reviews.accepted`` only the keys are in memory.
    """
    spark = load_config(settings, SparkConfig)
    rows = work / ROWS_FOLDER
    for name in (ROWS_FOLDER, REJECTED_FOLDER):
        (work / name).mkdir(parents=True)
    files = source.config.reviews
    reading = _Reading(files, source.config.timezone, config.earliest_time, as_of, now, work)

    def read_files(paths: Sequence[Path]) -> list[CleanRows]:
        pieces = _cut_all(paths, work / PIECES_FOLDER, spark, files.encoding)
        with spark_session(spark, session_folder(work)) as session:
            task = functools.partial(_read_pieces, reading=reading, pieces=pieces)
            found = session.range(0, len(pieces), 1, len(pieces)).mapInArrow(task, _FOUND)
            summaries = sorted((row.asDict() for row in found.collect()), key=_piece_number)
        shutil.rmtree(work / PIECES_FOLDER, ignore_errors=True)
        return [_join_pieces(path, pieces, summaries, work) for path in paths]

    view = read_view_with(settings, source, config, as_of=as_of, now=now, read_files=read_files)
    for number, part in enumerate(view.staged.parts):
        if len(part.accepted):
            _write_rows(part.accepted, rows / f"staged-{number:05}.parquet")
    return view


@dataclass(frozen=True)
class _Reading:
    """What a worker needs to know to read a piece."""

    files: ReviewFiles
    zone: str
    earliest: datetime
    as_of: datetime
    now: datetime
    work: Path


_FOUND = "piece long, accepted long, rejected long, later long, columns string, error string"


def _cut_all(
    paths: Sequence[Path], folder: Path, config: SparkConfig, encoding: str
) -> list[Piece]:
    shutil.rmtree(folder, ignore_errors=True)
    pieces = []
    for number, path in enumerate(paths):
        try:
            piece_bytes = int(config.piece_mb * 1_000_000)
            pieces += cut(path, folder / f"{number:05}", piece_bytes, encoding)
        except (OSError, EOFError, zlib.error, pa.ArrowException) as error:
            raise SourceError(f"{path}: cannot be read: {error}") from error
    return pieces


def _read_pieces(
    batches: Iterator[pa.RecordBatch], *, reading: _Reading, pieces: Sequence[Piece]
) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        for number in batch.column(0).to_pylist():
            found = {"piece": number, **_read_piece(number, pieces[number], reading)}
            yield pa.RecordBatch.from_pylist([found])


def _read_piece(number: int, piece: Piece, reading: _Reading) -> dict[str, Any]:
    files = reading.files
    try:
        cleaned = clean_rows(
            read_rows(piece.path, files.needed, files.optional, files.encoding),
            files.timestamp,
            ZoneInfo(reading.zone),
            earliest=reading.earliest,
            as_of=reading.as_of,
            now=reading.now,
        )
    except SourceError as error:
        text = str(error).replace(str(piece.path), str(piece.original))
        return {"accepted": 0, "rejected": 0, "later": 0, "columns": "[]", "error": text}
    _write_rows(cleaned.accepted, reading.work / ROWS_FOLDER / f"piece-{number:05}.parquet")
    with atomic_path(_rejected_file(reading.work, number)) as temporary:
        cleaned.rejected.to_feather(temporary)
    return {
        "accepted": len(cleaned.accepted),
        "rejected": len(cleaned.rejected),
        "later": cleaned.later,
        "columns": json.dumps(sorted(cleaned.columns)),
        "error": "",
    }


def _write_rows(rows: pd.DataFrame, path: Path) -> None:
    """Keys as signed numbers: Spark knows no others."""
    signed = {name: rows[name].to_numpy().view(np.int64) for name in _KEYS}
    with atomic_path(path) as temporary:
        table = pa.Table.from_pandas(rows.assign(**signed), preserve_index=False)
        pq.write_table(table, temporary, use_dictionary=[schema.PRODUCT])


def _rejected_file(work: Path, number: int) -> Path:
    return work / REJECTED_FOLDER / f"{number:05}.feather"


def _piece_number(summary: dict[str, Any]) -> int:
    return int(summary["piece"])


def _join_pieces(
    path: Path, pieces: Sequence[Piece], summaries: Sequence[dict[str, Any]], work: Path
) -> CleanRows:
    """What the pieces of the file `path` say together."""
    rejected: list[pd.DataFrame] = []
    keys: list[Keys] = []
    columns: set[str] = set()
    later = before = 0
    for number, (piece, summary) in enumerate(zip(pieces, summaries, strict=True)):
        if piece.original != path:
            continue
        if summary["error"]:
            raise SourceError(summary["error"])
        keys.append(_stored_keys(work / ROWS_FOLDER / f"piece-{number:05}.parquet"))
        bad = pd.read_feather(_rejected_file(work, number))
        bad[ROW] += before if piece.rows_before is None else piece.rows_before
        bad[FILE] = pd.Series(str(path), index=bad.index, dtype="str")
        rejected.append(bad)
        before += summary["accepted"] + len(bad) + summary["later"]
        later += summary["later"]
        columns |= set(json.loads(summary["columns"]))
    return CleanRows(
        pd.DataFrame({KEY: np.concatenate(keys)}),
        pd.concat(rejected, ignore_index=True),
        later,
        columns=frozenset(columns),
    )


def _stored_keys(path: Path) -> Keys:
    keys: Keys = pq.read_table(path, columns=[KEY])[KEY].to_numpy().view(np.uint64)
    return keys


def write_latest(settings: Settings, work: Path, view: Path) -> int:
    """Write the latest row of each user and product to the feather file `view`; their number.

    The rows are those that `read_view` left in `work`, in the order of
    `recsys.data.events.latest_rows`; each range of users is a record batch of the file.
    """
    spark = load_config(settings, SparkConfig)
    rows, ranges = work / ROWS_FOLDER, work / RANGES_FOLDER
    shutil.rmtree(ranges, ignore_errors=True)
    ranges.mkdir()
    count = sum(pq.read_metadata(file).num_rows for file in rows.glob("*.parquet"))
    bits = max(1, (count // spark.rows_per_range).bit_length())
    with spark_session(spark, session_folder(work)) as session:
        stored = session.read.parquet(str(rows))
        # The highest bits of the key: ranges in order hold the users in order.
        dealt = stored.selectExpr("*", f"shiftrightunsigned({USER_KEY}, {_KEY_BITS - bits}) r")

        def latest(table: pa.Table) -> pa.Table:
            return _write_range(table, ranges)

        found = dealt.groupBy("r").applyInArrow(latest, "user_range long, users long")
        users = {row["user_range"]: row["users"] for row in found.collect()}
    return _join_ranges(ranges, users, view)


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


def assemble(
    settings: Settings, work: Path, view: Path, quality: Path, catalogue: pd.DataFrame
) -> Dataset:
    """The dataset of the rows in `view`, built in parts; its interactions stay on disk.

    `quality` is the npy file of the rows' COMMENT_QUALITY.
    """
    spark = load_config(settings, SparkConfig)
    folder = work / PARTS_FOLDER
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    with pa.memory_map(str(view)) as mapped:
        reader = pa.ipc.open_file(mapped)
        lengths = [reader.get_batch(number).num_rows for number in range(reader.num_record_batches)]
    starts = [0, *itertools.accumulate(lengths)]
    with spark_session(spark, session_folder(work)) as session:
        task = functools.partial(
            _write_parts, view=view, quality=quality, starts=starts, folder=folder
        )
        numbers = session.range(0, len(lengths), 1, len(lengths))
        numbers.mapInArrow(task, "part long").collect()
    parts = [_Part(folder, number) for number in range(len(lengths))]
    return join_parts(
        pa.concat_tables(feather.read_table(part.rows, memory_map=True) for part in parts),
        pd.concat([pd.read_feather(part.users) for part in parts], ignore_index=True),
        [read_entries(part.entries) for part in parts],
        catalogue,
    )


@dataclass(frozen=True)
class _Part:
    """Files of one range of users."""

    folder: Path
    number: int

    @property
    def rows(self) -> Path:
        return self.folder / f"rows-{self.number:05}.feather"

    @property
    def users(self) -> Path:
        return self.folder / f"users-{self.number:05}.feather"

    @property
    def entries(self) -> Path:
        return self.folder / f"entries-{self.number:05}.npz"


def _write_parts(
    batches: Iterator[pa.RecordBatch],
    *,
    view: Path,
    quality: Path,
    starts: Sequence[int],
    folder: Path,
) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        for number in batch.column(0).to_pylist():
            with pa.memory_map(str(view)) as mapped:
                rows = pa.ipc.open_file(mapped).get_batch(number).to_pandas()
            rows[USER_NUMBER] -= rows[USER_NUMBER].iloc[0]
            of_rows = np.load(quality, mmap_mode="r")[starts[number] : starts[number + 1]]
            rows[schema.COMMENT_QUALITY] = np.array(of_rows)
            built, files = build_part(rows), _Part(folder, number)
            for frame, path in ((built.interactions, files.rows), (built.users, files.users)):
                with atomic_path(path) as temporary:
                    table = pa.Table.from_pandas(frame, preserve_index=False)
                    feather.write_feather(table, str(temporary), compression="uncompressed")
            write_entries(built.entries, files.entries)
            yield pa.RecordBatch.from_pydict({"part": [number]})
