"""What the data area keeps of customers, and where; see `recsys.personal`."""

import contextlib
import csv
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow.csv import ParseOptions, read_csv

from recsys import schema
from recsys.columns import normalise_ids
from recsys.config import load_config
from recsys.data.config import DataConfig
from recsys.data.events import ARCHIVE_KEY, read_segment
from recsys.data.reading import ROW, read_rows
from recsys.data.records import leave_out
from recsys.data.sources import (
    TimedFiles,
    known_sources,
    load_source,
    resolve_source,
    source_name,
)
from recsys.data.staging import FILES_KEY, RAW_KEY, SEALED_KEY, seal_segments
from recsys.data.versions import list_versions, open_version
from recsys.erasing import from_csv, from_files, from_json_lines, from_parquet
from recsys.errors import InputError
from recsys.ids import normalise_id
from recsys.personal import (
    SHOP,
    Doubtful,
    Erased,
    Forgot,
    Found,
    PersonalData,
    Sought,
    Unread,
    files_at,
    is_outside,
    place_of,
)
from recsys.served_lists import SUFFIX as LISTS
from recsys.settings import Settings
from recsys.storage import open_store
from recsys.traces import in_files, in_parquet, of_rows, of_texts, owners_of, reading, unread

_FILES: Final = "data/raw/**/*"
_SEEN: Final = {SEALED_KEY: "data/staging/seen", FILES_KEY: "data/staging/seen_files"}
"""Where this machine looks at what others handed in. Not where a refresh collects it: each begins
by emptying that folder."""
_DROPPED: Final = (
    *("data/raw/dropped/*/*", "data/staging/files/*"),
    *("data/staging/collected/files/*", "data/staging/seen_files/*"),
)
_ARCHIVE: Final = f"{ARCHIVE_KEY}/*/*.parquet"
_STAGED: Final = (
    *("data/staging/events/*.jsonl", "data/staging/sealed/*.jsonl"),
    *("data/staging/collected/sealed/*.jsonl", "data/staging/seen/*.jsonl"),
)
_BAD_ROWS: Final = "data/quarantine/*.csv"
_IMPLAUSIBLE: Final = "data/quarantine/interactions/*.jsonl"
_BAD_FILES: Final = ("data/quarantine/files/*", "data/quarantine/served/*")
_VERSIONS: Final = "data/versions/*"
_TABLES: Final = (schema.INTERACTIONS_FILE, schema.SIGNALS_FILE, schema.USER_METADATA_FILE)
_TWINS: Final = (schema.USER_METADATA_FILE, schema.USER_METADATA_PICKLE)
"""The same in two formats: the second says what the first says."""
_KEPT_VERSIONS: Final = (
    "with the version: the newest `keep_versions`, and those that a model in use or a report names"
)


def look_at_all(settings: Settings) -> None:
    """Where state is shared, have what all machines handed in and archived here as well."""
    store = open_store(settings)
    if store.shared:
        store.mirror(RAW_KEY, RAW_KEY)
        for key, seen in _SEEN.items():
            store.see(key, seen)


def session_pairs(settings: Settings) -> Iterator[pa.Table]:
    """Tables of USER and SESSION, of all events that have both, in whatever spelling."""
    look_at_all(settings)
    for path in files_at(settings, _ARCHIVE):
        with pq.ParquetFile(path) as file:
            if schema.SESSION in file.schema_arrow.names:  # those of before have none
                yield file.read([schema.USER, schema.SESSION])
    for path in files_at(settings, *_STAGED, _IMPLAUSIBLE):
        yield read_segment(path).table.select([schema.USER, schema.SESSION])


def _shop_files(settings: Settings) -> tuple[dict[Path, TimedFiles], list[Path]]:
    """The source's files and the exports of events, and how they are described; and whatever else
    lies there."""
    described: dict[Path, TimedFiles] = {}
    catalogue: Sequence[Path] = ()
    # Files whose description is of no use are looked at like those that have none.
    with contextlib.suppress(InputError):
        source = resolve_source(settings)
        catalogue = source.product_files
        described = dict.fromkeys(source.review_files, source.config.reviews)
        for export in source.events:
            described |= dict.fromkeys(export.files, export.config.events)
    elsewhere = {*files_at(settings, _ARCHIVE, *_DROPPED), *described, *catalogue}
    return described, [path for path in files_at(settings, _FILES) if path not in elsewhere]


def _in_shop_files(settings: Settings, sought: Sought) -> Found:
    """Of files that are described what their rows say, by their columns; of others what can be told
    by itself."""
    described, others = _shop_files(settings)
    for path, files in described.items():
        yield from _in_described(settings, sought, path, files)
    yield from in_files(settings, sought, others)


def _out_of_shop_files(settings: Settings, sought: Sought) -> Forgot:
    described, others = _shop_files(settings)
    for path, files in described.items():
        yield from _out_of_described(settings, sought, path, files)
    yield from _handed_on(settings, from_files(settings, sought, others))


def id_columns(settings: Settings) -> Iterator[pa.ChunkedArray]:
    """The customers of files that are described, and of rows that could not be used; of all else
    the files themselves say which column it is."""
    for path, files in (*_shop_files(settings)[0].items(), *_dropped_files(settings)):
        if schema.USER in files.needed and not is_outside(settings, place_of(settings, path)):
            with reading(path):
                users = {schema.USER: files.needed[schema.USER]}
                yield read_rows(path, users, {}, files).table[schema.USER]
    for path in files_at(settings, _BAD_ROWS):
        with reading(path):
            table = read_csv(path, parse_options=ParseOptions(newlines_in_values=True))
            if "raw" in table.column_names:
                yield _first_of(table["raw"])


def _first_of(raw: pa.ChunkedArray) -> pa.ChunkedArray:
    """The customers of raw rows, where they could be split into columns."""
    return pc.list_element(pc.split_pattern(raw.cast(pa.large_string()), " | ", max_splits=1), 0)


def _in_described(settings: Settings, sought: Sought, path: Path, files: TimedFiles) -> Found:
    """The rows of a file whose columns are described, and what could not be split into such."""
    place = place_of(settings, path)
    names = {**files.needed, **files.optional}
    if schema.USER not in names:  # there are sessions alone
        yield from in_files(settings, sought, [path])
        return
    with reading(path) as problem:
        needed = {schema.USER: names.pop(schema.USER)}
        rows = read_rows(path, needed, names, files)
        session = schema.SESSION if schema.SESSION in rows.table.column_names else None
        yield from of_rows(sought, place, rows.table, [schema.USER], session=session)
        torn = pa.array([text for *_, text in rows.rejected], pa.large_string())
        yield from of_texts(sought, place, torn)
    yield from unread(settings, path, problem)


def _out_of_described(settings: Settings, sought: Sought, path: Path, files: TimedFiles) -> Forgot:
    place = place_of(settings, path)
    if is_outside(settings, place):
        return
    if schema.USER not in {**files.needed, **files.optional}:
        yield from _handed_on(settings, from_files(settings, sought, [path]))
        return
    with reading(path) as problem:
        if count := leave_out(path, files, sought):
            yield from _handed_on(settings, [Erased(place, count)])
    yield from unread(settings, path, problem)


def _handed_on(settings: Settings, forgot: Iterable[Erased | Unread | Doubtful]) -> Forgot:
    """Where state is shared, let all machines have the files as they are now."""
    store = open_store(settings)
    for one in forgot:
        if isinstance(one, Erased) and store.shared:
            _hand_on(settings, one.place)
        yield one


def _hand_on(settings: Settings, place: str) -> None:
    """The files of the shop are the same everywhere; of what waits for a refresh this machine has a
    copy to look at, and the store the one that counts, unless a refresh has taken it."""
    store = open_store(settings)
    if place.startswith(f"{RAW_KEY}/"):
        store.share(place)
    for key, seen in _SEEN.items():
        name = place.removeprefix(f"{seen}/")
        if name != place and name in store.files(key):
            own = settings.home / key / name
            own.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(settings.home / place, own)
            store.share(f"{key}/{name}")
            own.unlink()


def _dropped_files(settings: Settings) -> list[tuple[Path, TimedFiles]]:
    known = {name: load_source(settings, name).reviews for name in known_sources(settings)}
    selected = known[source_name(settings)]
    found = files_at(settings, *_DROPPED)
    return [(path, known.get(path.parent.name, selected)) for path in found]


def _in_dropped(settings: Settings, sought: Sought) -> Found:
    for path, files in _dropped_files(settings):
        yield from _in_described(settings, sought, path, files)


def _out_of_dropped(settings: Settings, sought: Sought) -> Forgot:
    look_at_all(settings)
    for path, files in _dropped_files(settings):
        yield from _out_of_described(settings, sought, path, files)


def _in_bad_rows(settings: Settings, sought: Sought) -> Found:
    """The raw fields of a row begin with the customer, where it could be split into such."""
    for path in files_at(settings, _BAD_ROWS):
        place = place_of(settings, path)
        with reading(path) as problem:
            table = read_csv(path, parse_options=ParseOptions(newlines_in_values=True))
            if "raw" not in table.column_names:  # somebody else's
                yield from in_files(settings, sought, [path])
                continue
            raw = table["raw"].cast(pa.large_string())
            whose = _first_of(raw)
            rows = table.append_column(schema.USER, whose)
            yield from of_rows(sought, place, rows, [schema.USER])
            ids = pa.array(sorted(sought.ids), pa.large_string())
            others = pc.invert(pc.is_in(normalise_ids(whose), value_set=ids))
            rest = raw.filter(others).combine_chunks()
            yield from of_texts(sought, place, rest)
        yield from unread(settings, path, problem)


def _out_of_bad_rows(settings: Settings, sought: Sought) -> Forgot:
    def owners(rows: pa.Table) -> pa.ChunkedArray:
        raw = rows["raw"]
        whose = _first_of(raw)
        named = owners_of(sought, pa.table({schema.USER: whose}), [schema.USER], None)
        about = [min(sought.in_text(text)[0], default=None) for text in raw.to_pylist()]
        return pc.coalesce(named, pa.array(about, pa.large_string()))

    for path in files_at(settings, _BAD_ROWS):
        with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
            ours = "raw" in next(csv.reader(file), [])
        if ours:
            yield from from_csv(settings, path, ",", owners)
        else:
            yield from from_files(settings, sought, [path])


def _out_of_bad_files(settings: Settings, sought: Sought) -> Forgot:
    """Of served lists that cannot be read nobody can tell whose they are, and how many are lost is
    known already: they go."""
    for path in files_at(settings, *_BAD_FILES):
        found = list(from_files(settings, sought, [path]))
        ours = path.parent.name == "served"
        if ours and (path.suffix == LISTS or any(isinstance(one, Unread) for one in found)):
            path.unlink(missing_ok=True)
            found = [Erased(place_of(settings, path), 1)]
        yield from found


def _out_of_segments(settings: Settings, sought: Sought, patterns: Iterable[str]) -> Forgot:
    def owner(event: Mapping[str, Any]) -> str | None:
        user = normalise_id(str(event.get(schema.USER) or ""))
        if user:
            return user if user in sought.ids else None
        return sought.sessions.get(normalise_id(str(event.get(schema.SESSION) or "")))

    yield from from_json_lines(settings, files_at(settings, *patterns), owner)


def _in_archive(settings: Settings, sought: Sought) -> Found:
    paths = files_at(settings, _ARCHIVE)
    yield from in_parquet(settings, sought, paths, [schema.USER], session=schema.SESSION)


def _in_segments(settings: Settings, sought: Sought, patterns: Iterable[str]) -> Found:
    for path in files_at(settings, *patterns):
        with reading(path) as problem:
            table = read_segment(path).table
            place = place_of(settings, path)
            yield from of_rows(
                sought, place, table.drop([ROW]), [schema.USER], session=schema.SESSION
            )
        yield from unread(settings, path, problem)


def _out_of_archive(settings: Settings, sought: Sought) -> Forgot:
    paths, names = files_at(settings, _ARCHIVE), [schema.USER]
    forgot = from_parquet(settings, sought, paths, names, session=schema.SESSION)
    yield from _handed_on(settings, forgot)


def _out_of_staged(settings: Settings, sought: Sought) -> Forgot:
    """Nobody writes to segments that are sealed."""
    seal_segments(settings)
    yield from _handed_on(settings, _out_of_segments(settings, sought, _STAGED))


def _without_scratch(settings: Settings, sought: Sought) -> Forgot:
    """While nobody works there, all of it is of runs that are dead."""
    store, key = open_store(settings), settings.work.relative_to(settings.home).as_posix()
    for path in settings.work.glob("*"):
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    for name in store.files(key) if store.shared else ():
        store.discard(f"{key}/{name}")
    yield from ()


def find_in_versions(settings: Settings, sought: Sought) -> Found:
    for name in list_versions(settings):
        try:
            version = open_version(settings, name)
        except (InputError, OSError) as error:
            yield Unread(f"data/versions/{name}", str(error))
            continue
        with version:
            tables = [path for one in _TABLES if (path := version.path / one).exists()]
            for found in in_parquet(settings, sought, tables, [schema.USER]):
                yield found
                if found.place.endswith(f"/{schema.USER_METADATA_FILE}"):
                    yield found._replace(place=found.place.replace(*_TWINS))
            mappings = version.path / schema.MAPPINGS_FILE
            with reading(mappings) as problem:
                users = pa.array(version.mappings()[0], pa.large_string())
                rows = pa.table({schema.USER: users, "row": pa.array(range(len(users)))})
                place = place_of(settings, mappings)
                yield from of_rows(sought, place, rows, [schema.USER])
            yield from unread(settings, mappings, problem)


def _keep_quarantine_days(settings: Settings) -> float:
    return load_config(settings, DataConfig).keep_quarantine_days


VERSIONS: Final = PersonalData(
    "versions of the data",
    (
        *(f"{_VERSIONS}/{name}" for name in _TABLES),
        *(f"{_VERSIONS}/{name}" for name in (schema.USER_METADATA_PICKLE, schema.MAPPINGS_FILE)),
    ),
    "models, reports and the service are made from them",
    _KEPT_VERSIONS,
    find_in_versions,
)
"""Without what forgets, which is for those to know who can make another: `recsys.upkeep`."""

PERSONAL: Final = (
    PersonalData(
        "files that the shop dropped",
        _DROPPED,
        "each refresh reads them again",
        "for good: they are the only copy",
        _in_dropped,
        forget=_out_of_dropped,
    ),
    PersonalData(
        "events that wait for the next refresh",
        _STAGED,
        "the service has acknowledged them",
        "until the next refresh, a day",
        lambda settings, sought: _in_segments(settings, sought, _STAGED),
        forget=_out_of_staged,
    ),
    PersonalData(
        "events that the service took",
        (_ARCHIVE,),
        "each refresh reads them again; there is no other copy",
        "for good",
        _in_archive,
        forget=_out_of_archive,
    ),
    PersonalData(
        "rows that could not be used",
        (_BAD_ROWS,),
        "so that a person can see what is wrong with the shop's export",
        "{days} days (`keep_quarantine_days` of `data.yaml`)",
        _in_bad_rows,
        _keep_quarantine_days,
        _out_of_bad_rows,
    ),
    PersonalData(
        "events that are not plausible",
        (_IMPLAUSIBLE,),
        "so that a person can see who sends them",
        "{days} days (`keep_quarantine_days` of `data.yaml`)",
        lambda settings, sought: _in_segments(settings, sought, [_IMPLAUSIBLE]),
        _keep_quarantine_days,
        lambda settings, sought: _out_of_segments(settings, sought, [_IMPLAUSIBLE]),
    ),
    PersonalData(
        "files that could not be used, and damaged ones",
        _BAD_FILES,
        "so that a person can see what is wrong with them",
        "{days} days (`keep_quarantine_days` of `data.yaml`)",
        lambda settings, sought: in_files(settings, sought, files_at(settings, *_BAD_FILES)),
        _keep_quarantine_days,
        _out_of_bad_files,
    ),
    PersonalData(
        "scratch of running jobs",
        ("data/work/**/*",),
        "a job puts together there what it publishes",
        "until the job ends; what a killed one left, two days",
        None,
        forget=_without_scratch,
    ),
    PersonalData(
        "the shop's own files: reviews, orders, clicks",
        (_FILES,),
        "they are what everything else is made of",
        SHOP,
        _in_shop_files,
        forget=_out_of_shop_files,
    ),
)
