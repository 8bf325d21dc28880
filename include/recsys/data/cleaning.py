"""From columns of text to valid reviews; everything else is rejected with a reason."""

import codecs
import contextlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
from numpy.typing import NDArray

from recsys import schema
from recsys.arrays import UInt64Array
from recsys.columns import contains_byte, id_faults, normalise_ids, rename_ids
from recsys.data.forgotten import NOBODY, without_forgotten, without_named
from recsys.data.keys import add_keys, hash_texts, text_series
from recsys.data.reading import FILE, ROW, RawRows, is_csv, read_head, read_rows
from recsys.data.sources import EPOCH, ISO, ReviewFiles, TimedFiles, TimestampFormat
from recsys.ids import MISSING, NOBODY_BUT_MANY, STANDS_FOR_MANY, IdRules
from recsys.privacy import Forgotten
from recsys.publishing import atomic_path
from recsys.settings import CORES, Settings

REASON = "reason"
RAW = "raw"
_NULL = r"\N"  # as MySQL writes it
_MISSING = pa.array(MISSING, pa.large_string())
_ISO_LOCAL = r"^\d{4}-\d{2}-\d{2}(?:[Tt ][\d:.]*)?$"
# PostgreSQL writes +07, others +0700, +07:00 or Z, with or without a blank before it.
_ISO_OFFSET = r"^(\d{4}-\d{2}-\d{2}[Tt ][\d:.]+) ?(?:[Zz]|([+-]\d{2})(?::?(\d{2}))?)$"
_FORMULA = r"^(\s*[=+\-@\t\r])"
_BACKSLASH = 92
_MILLISECONDS_FROM = 1e11
_UTC = "datetime64[us, UTC]"
_CLOCKS = ("", " %H:%M", " %H:%M:%S")
_CLEAR_FORMATS = tuple(
    tuple(date.replace("/", mark) + clock for mark in "/-." for clock in _CLOCKS)
    for date in ("%d/%m/%Y", "%m/%d/%Y", "%Y/%m/%d")
)
_CLEAR_SHARE = 0.8
"""So many of a file's times must fit: the others are bad rows, as a run allows a fifth of them."""

FilesT = TypeVar("FilesT", bound=TimedFiles)

Fault = tuple[NDArray[np.bool_], str]
"""Which rows are bad, and the reason; of several the first is named."""


@dataclass(frozen=True)
class Limits:
    """Which rows a run takes for valid. Times without an offset are local times of `zone`. Those
    before `earliest` or after `now` are rejected; valid rows at or after `as_of`, the exclusive end
    of the view, are counted, no more. `ids` says which customers are none, and which products got
    another id. Rows of customers who are `forgotten` are left out before anything else."""

    zone: ZoneInfo
    earliest: datetime
    as_of: datetime
    now: datetime
    ids: IdRules = IdRules()
    forgotten: Forgotten = NOBODY


@dataclass
class CleanRows:
    """The valid rows of a view, and what became of the others.

    `accepted` has, of reviews, USER, PRODUCT, RATING, TIMESTAMP, COMMENT and the keys of
    `recsys.data.keys`, in the order of the file; `rejected` has FILE, ROW, REASON, RAW. `later`
    counts valid rows that the view does not reach yet, `repeated` those whose event id had been
    seen, `unclear_prices` those without a clear price, `ignored` those that the description leaves
    out. `columns` are ours that the file had. `taken_back`, of an export of events: by the hash of
    an event id the number of the last row that is left out and has it. Rows of customers who are
    `forgotten` were not read, as if the file did not have them.
    """

    accepted: pd.DataFrame
    rejected: pd.DataFrame
    later: int
    repeated: int = 0
    columns: frozenset[str] = frozenset()
    unclear_prices: int = 0
    ignored: int = 0
    taken_back: pd.Series | None = None
    forgotten: int = 0

    @property
    def rows_read(self) -> int:
        left_out = self.later + self.repeated + self.ignored
        return len(self.accepted) + len(self.rejected) + left_out

    @property
    def bad_rows(self) -> int:
        """Rejected rows that say something about the file: guests are no fault of it."""
        return int((~self.rejected[REASON].isin((STANDS_FOR_MANY, NOBODY_BUT_MANY))).sum())


def read_reviews(path: Path, files: ReviewFiles, limits: Limits) -> CleanRows:
    """Read and check a file of reviews. Raises `SourceError` as `read_rows` does."""
    return read_settled(path, settle_files(path, files, limits), limits)


def read_settled(path: Path, files: ReviewFiles, limits: Limits) -> CleanRows:
    """The same for files of which `settle_files` has left nothing open."""
    raw = read_rows(path, files.needed, files.optional, files)
    return clean_rows(without_forgotten(raw, limits.forgotten), files.timestamp, limits)


def settle_files(path: Path, files: FilesT, limits: Limits) -> FilesT:
    """`files` with the dialect of the file at `path`, and its formats of time if they are clear.
    Formats are looked for only where none of the description's fits the beginning of a CSV file.
    They are clear if either days or months come first in nearly all of it, and not both might."""
    if not is_csv(path):
        return files
    head, dialect = read_head(path, files.needed, files)
    settled = dialect.model_dump(include={"delimiter", "escape", "skip_lines"})
    files = files.model_copy(update=settled)
    texts = text_series(_joined(_time_parts(head, files.timestamp)))
    if parse_times(texts, files.timestamp.formats, limits.zone).notna().any():
        return files
    times = {formats: parse_times(texts, formats, limits.zone) for formats in _CLEAR_FORMATS}
    read = {formats: found.notna().mean() for formats, found in times.items()}
    best, second = sorted(read, key=lambda formats: read[formats], reverse=True)[:2]
    if not read[best] >= _CLEAR_SHARE or read[second] == read[best]:
        return files
    timestamp = files.timestamp.model_copy(update={"formats": best})
    return files.model_copy(update={"timestamp": timestamp})


def clean_rows(raw: RawRows, timestamp: TimestampFormat, limits: Limits) -> CleanRows:
    """Check every row of `raw`. `timestamp`: how times are written."""
    table = raw.table
    comment = text_series(column_text(table, schema.COMMENT))
    with ThreadPoolExecutor(CORES) as pool:
        # The longest first: no thread then ends long after the others.
        hashing = pool.submit(hash_texts, comment)
        times = pool.submit(read_times, table, timestamp, limits)
        users = pool.submit(read_ids, table[schema.USER], "user", limits.ids, {})
        products = pool.submit(read_ids, table[schema.PRODUCT], "product", None, limits.ids.aliases)
        rating, rating_faults = read_ratings(table[schema.RATING])
    user, user_hash, user_faults = users.result()
    product, product_hash, product_faults = products.result()
    time, time_faults = times.result()
    faults = [*user_faults, *product_faults, *rating_faults, *time_faults]
    good = without(faults)
    in_view = good & (time < limits.as_of).to_numpy()
    names = (schema.USER, schema.PRODUCT, schema.RATING, schema.TIMESTAMP, schema.COMMENT)
    columns = (user, product, rating, time, comment)
    accepted = pd.DataFrame(dict(zip(names, columns, strict=True)), copy=False)
    add_keys(accepted, user_hash, product_hash, hashing.result())
    accepted = accepted if in_view.all() else accepted[in_view].reset_index(drop=True)
    later = int((good & ~in_view).sum())
    rejected, forgotten = rejected_rows(raw, faults, limits.forgotten)
    return CleanRows(accepted, rejected, later, columns=columns_of(raw), forgotten=forgotten)


def concatenate(parts: list[CleanRows]) -> CleanRows:
    """All rows of several files."""
    if len(parts) == 1:
        return parts[0]
    return CleanRows(
        # Rows that were read elsewhere are here by their keys alone.
        pd.concat([part.accepted for part in parts], ignore_index=True, join="inner"),
        pd.concat([part.rejected for part in parts], ignore_index=True),
        sum(part.later for part in parts),
        sum(part.repeated for part in parts),
        frozenset.intersection(*(part.columns for part in parts)),
        sum(part.unclear_prices for part in parts),
        sum(part.ignored for part in parts),
        forgotten=sum(part.forgotten for part in parts),
    )


def write_quarantine(settings: Settings, version_id: str, rejected: pd.DataFrame) -> None:
    """Write ``data/quarantine/<version_id>.csv`` (file, row, reason, raw), if there are rows. For a
    spreadsheet: with a mark that says UTF-8, and an apostrophe before what it would run."""
    if rejected.empty:
        return
    harmless = rejected.replace(_FORMULA, r"'\1", regex=True)
    table = pa.Table.from_pandas(harmless, preserve_index=False)
    with atomic_path(settings.quarantine / f"{version_id}.csv") as path, path.open("wb") as file:
        file.write(codecs.BOM_UTF8)
        pacsv.write_csv(table, file)


def parse_times(texts: pd.Series, formats: tuple[str, ...], zone: ZoneInfo) -> pd.Series:
    """datetime64[us, UTC] of each text, NaT where no format fits. Texts without an offset of their
    own are local times of `zone`."""
    result = pd.Series(pd.NaT, index=texts.index, dtype=_UTC)
    for text_format in formats:
        if (unread := result.isna()).any():
            result = result.fillna(_parse_one(texts[unread], text_format, zone))
    return result


def _parse_one(texts: pd.Series, text_format: str, zone: ZoneInfo) -> pd.Series:
    if text_format == EPOCH:
        number = pd.to_numeric(texts, errors="coerce").astype("float64")
        number = number.where(number.abs() < _MILLISECONDS_FROM, number / 1000)
        number = number.where(number.abs() < _MILLISECONDS_FROM)
        return _utc(pd.to_datetime(number, unit="s", utc=True, errors="coerce"), zone)
    if text_format != ISO:
        aware = "%z" in text_format  # rows of one file may have different offsets
        return _utc(pd.to_datetime(texts, format=text_format, errors="coerce", utc=aware), zone)
    local = texts.where(texts.str.match(_ISO_LOCAL))
    times = _utc(pd.to_datetime(local, format="ISO8601", errors="coerce"), zone)
    offset = local.isna() & texts.str.match(_ISO_OFFSET)
    if not offset.any():
        return times
    parts = texts[offset].str.extract(_ISO_OFFSET)
    one_form = parts[0] + parts[1].fillna("+00") + ":" + parts[2].fillna("00")
    fixed = pd.to_datetime(one_form, format="ISO8601", errors="coerce", utc=True)
    return times.fillna(_utc(fixed, zone))


def _utc(times: pd.Series, zone: ZoneInfo) -> pd.Series:
    """Times without an offset are those of clocks in `zone`."""
    if times.dt.tz is None:
        # Where clocks go forward, a time that was skipped is the first one after it (some days have
        # no midnight); where they go back, of two times of one name the earlier one is meant.
        earlier = np.ones(len(times), dtype=np.bool_)
        times = times.dt.tz_localize(zone, ambiguous=earlier, nonexistent="shift_forward")
    return times.dt.tz_convert("UTC").astype(_UTC)


def without(faults: list[Fault]) -> NDArray[np.bool_]:
    """Which rows have no fault."""
    return np.asarray(~np.logical_or.reduce([bad for bad, _ in faults]))


def _is_missing(column: pa.ChunkedArray) -> NDArray[np.bool_]:
    return np.asarray(pc.is_in(pc.ascii_lower(column), value_set=_MISSING))


def read_ids(
    column: pa.ChunkedArray, what: str, rules: IdRules | None, aliases: Mapping[str, str]
) -> tuple[pd.Series, UInt64Array, list[Fault]]:
    ids = normalise_ids(column)
    texts = text_series(rename_ids(ids, aliases) if aliases else ids)
    return texts, hash_texts(texts), id_faults(ids, what, rules)


def read_ratings(column: pa.ChunkedArray) -> tuple[NDArray[np.float32], list[Fault]]:
    text = pc.utf8_trim_whitespace(column)
    try:
        number = text.cast(pa.float64()).to_numpy()
    except pa.ArrowInvalid:
        points = pc.replace_substring_regex(text, r"^(\d),(\d+)$", r"\1.\2")
        number = pd.to_numeric(text_series(points), errors="coerce").to_numpy(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        outside = ~((number >= 1) & (number <= 5))
        stars = number.astype(np.float32)
    return stars, [
        (_is_missing(text), "there is no rating"),
        (np.isnan(number), "the rating is not a number"),
        (outside, "the rating is outside 1-5"),
    ]


def read_times(
    table: pa.Table, timestamp: TimestampFormat, limits: Limits
) -> tuple[pd.Series, list[Fault]]:
    """The time of each row (datetime64[us, UTC]), and which are none."""
    parts = _time_parts(table, timestamp)
    text, times = _joined(parts), None
    if timestamp.formats[0] == ISO:
        with contextlib.suppress(pa.ArrowInvalid):  # all of it, without an offset, at once
            times = _utc(text.cast(pa.timestamp("us")).to_pandas(), limits.zone)
    if times is None and timestamp.formats[0] == ISO:
        with contextlib.suppress(pa.ArrowInvalid):  # all of it, with an offset, at once
            times = text.cast(pa.timestamp("us", "UTC")).to_pandas()
    if times is None:
        times = parse_times(text_series(text), timestamp.formats, limits.zone)
    return times, [
        (np.logical_or.reduce([_is_missing(part) for part in parts]), "there is no time"),
        (times.isna().to_numpy(), "the time cannot be read"),
        ((times < limits.earliest).to_numpy(), f"the time is before {limits.earliest.date()}"),
        ((times > limits.now).to_numpy(), "the time is in the future"),
    ]


def _time_parts(table: pa.Table, timestamp: TimestampFormat) -> list[pa.ChunkedArray]:
    return [pc.utf8_trim_whitespace(table[name]) for name in timestamp.candidates]


def _joined(parts: list[pa.ChunkedArray]) -> pa.ChunkedArray:
    return pc.binary_join_element_wise(*parts, pa.scalar(" ", pa.large_string()))


def column_text(table: pa.Table, name: str) -> pa.ChunkedArray:
    """A column of text without null characters; empty texts when the file has none."""
    if name not in table.column_names:
        return pa.chunked_array([pa.array([""] * table.num_rows, pa.large_string())])
    column = table[name]
    if contains_byte(column, _BACKSLASH):
        column = pc.if_else(pc.equal(column, _NULL), "", column)
    return pc.replace_substring(column, "\0", "") if contains_byte(column, 0) else column


def reject_file(path: Path, reason: str) -> CleanRows:
    """A file of which no row can be used: one rejected row, number 0, stands for it."""
    types = {schema.USER: "str", schema.PRODUCT: "str", schema.RATING: "float32"}
    types |= {schema.TIMESTAMP: _UTC, schema.COMMENT: "str"}
    rows = pd.DataFrame({name: pd.Series([], dtype=kind) for name, kind in types.items()})
    add_keys(rows, *np.zeros((3, 0), dtype=np.uint64))
    return CleanRows(rows, reject_rows([str(path)], [0], [reason], [""]), 0)


def reject_rows(files: Any, rows: Any, reasons: Any, raw: Any) -> pd.DataFrame:
    """Rejected rows, as in `CleanRows`."""
    rejected = pd.DataFrame({FILE: files, ROW: rows, REASON: reasons, RAW: raw})
    return rejected.astype({FILE: "str", ROW: "int64", REASON: "str", RAW: "str"})


def columns_of(raw: RawRows) -> frozenset[str]:
    """Our names of the columns that the rows have."""
    return frozenset(raw.table.column_names) - {ROW, FILE}


def rejected_rows(
    raw: RawRows, faults: list[Fault], forgotten: Forgotten = NOBODY
) -> tuple[pd.DataFrame, int]:
    """What is rejected of the rows, as in `CleanRows`; and how many were left out of `raw`, and of
    this, because they are of customers who are `forgotten`."""
    rejected = _all_rejected(raw, faults)
    kept = without_named(rejected[RAW], forgotten)
    if kept.all():
        return rejected, raw.forgotten
    return rejected[kept].reset_index(drop=True), raw.forgotten + int((~kept).sum())


def _all_rejected(raw: RawRows, faults: list[Fault]) -> pd.DataFrame:
    bad = ~without(faults)
    reasons = np.full(np.count_nonzero(bad), "", dtype=object)
    for faulty, reason in reversed(faults):
        reasons[faulty[bad]] = reason
    table = raw.table.filter(pa.array(bad))
    values = [table[name] for name in table.column_names if name not in (ROW, FILE)]
    text = pc.binary_join_element_wise(*values, pa.scalar(" | ", pa.large_string()))
    files = table[FILE].to_pandas() if FILE in table.column_names else str(raw.path)
    rows = reject_rows(files, table[ROW].to_numpy(), reasons, text.to_pandas())
    if not raw.rejected:
        return rows
    numbers, why, texts = zip(*raw.rejected, strict=True)
    shown = [text.encode("utf-8", "replace").decode() for text in texts]  # no lone surrogates
    unsplit = reject_rows(str(raw.path), numbers, why, shown)
    return pd.concat([rows, unsplit]).sort_values(ROW, ignore_index=True)
