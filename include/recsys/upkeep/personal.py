"""All declarations of personal data together (`recsys.personal`), and what they find."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from recsys.columns import normalise_ids
from recsys.config import load_config
from recsys.data import personal as of_data
from recsys.erasing import from_files, from_lines, from_texts_of_database, over_lines
from recsys.merchandising import live_events
from recsys.models import personal as of_models
from recsys.outcomes import personal as of_outcomes
from recsys.personal import (
    Doubtful,
    Forgot,
    Found,
    PersonalData,
    Record,
    Sought,
    Unread,
    files_at,
    place_of,
)
from recsys.privacy import AUDIT_KEY, FORGETTING_KEY, ids_to_forget
from recsys.pseudonyms import PRIVACY_KEY, load_pseudonyms
from recsys.request_log import PERSONAL as OF_REQUESTS
from recsys.schema import SESSION, USER
from recsys.settings import Settings
from recsys.traces import id_columns, in_files, in_lines, in_texts_of_database, reading, unread
from recsys.upkeep import MaintenanceConfig
from recsys.upkeep.rewriting import forget_in_models, forget_in_versions

_LOGS: Final = ("logs/**/*.log", "logs/**/*.log.*")
_AIRFLOW: Final = (".airflow/logs/**/*", ".airflow/airflow.db")
_RECORDS: Final = (
    *(f"logs/{name}_metrics.db" for name in ("pipeline", "training")),
    *("logs/service/*.db", "logs/**/*.json"),
)
_REPORTS: Final = ("reports/**/*",)
_LISTS: Final = ("exports/**/*",)
AREAS: Final = ("data", "artifacts", "logs", "reports", "config", "exports")

_REQUIREMENTS: Final = (
    *("", "-audit", "-cluster", "-dev", "-s3server", "-service", "-spark", "-torch"),
)
_PRODUCT: Final = (
    *("benchmarks", "dags", "deploy", "docker", "docs", "include", "monitoring", "plugins"),
    *("recsys", "requirements.overrides", "serving", "tests"),
    *("CHANGELOG.md", "Dockerfile", "LICENSE", "Makefile", "README.md", "README.vi.md"),
    *("conftest.py", "docker-compose.yaml", "pyproject.toml", "__pycache__"),
    *(f"requirements{one}.{end}" for one in _REQUIREMENTS for end in ("in", "txt")),
)
"""What the repository has at its top."""

_OF_RUNS: Final = ("dag_id", "task_id", "run_id")
_AIRFLOW_TEXTS: Final = {
    "rendered_task_instance_fields": (*_OF_RUNS, "rendered_fields"),
    "xcom": (*_OF_RUNS, "key", "value"),
    "log": (*_OF_RUNS, "event", "dttm", "extra"),
    "dag_run": ("dag_id", "run_id", "conf"),
    "dag_run_note": ("content",),
    "task_instance_note": ("content",),
    "import_error": ("timestamp", "filename", "stacktrace"),
}
"""What of Airflow's database can have a sentence about somebody. Its connections, variables, users,
tokens, triggers and code are never read: they hold secrets."""
_AIRFLOW_KEYS: Final = (*_OF_RUNS, "key", "event", "dttm", "timestamp", "filename")
"""What of these says which row it is."""
_ABOUT_SECRETS: Final = "event LIKE '%connection%' OR event LIKE '%variable%'"


_DAMAGED_IDS: Final = "data/privacy/forgetting.damaged_*.json"


def _in(patterns: Sequence[str]) -> Any:
    return lambda settings, sought: in_files(
        settings, sought, _but_of_nobody(settings, files_at(settings, *patterns))
    )


def _out_of(patterns: Sequence[str]) -> Any:
    return lambda settings, sought: from_files(
        settings, sought, _but_of_nobody(settings, files_at(settings, *patterns))
    )


def _but_of_nobody(settings: Settings, paths: Iterable[Path]) -> list[Path]:
    return [path for path in paths if not NOBODY.covers(place_of(settings, path))]


def _log_files(settings: Settings) -> list[Path]:
    """All but the log of the register, which belongs to that."""
    audit = set(files_at(settings, f"{AUDIT_KEY}*"))
    return [path for path in files_at(settings, *_LOGS) if path not in audit]


def _in_airflow(settings: Settings, sought: Sought) -> Found:
    logs, database = _AIRFLOW
    yield from in_files(settings, sought, files_at(settings, logs))
    for path in files_at(settings, database):
        yield from in_texts_of_database(settings, sought, path, _AIRFLOW_TEXTS, _ABOUT_SECRETS)


def _to_be_forgotten(settings: Settings, sought: Sought) -> Found:
    with reading(settings.home / FORGETTING_KEY) as problem:
        for one, known in ids_to_forget(settings).read().items():
            if one in sought.ids:
                yield Record(one, FORGETTING_KEY, {"id": one, **known.model_dump(mode="json")})
    yield from unread(settings, settings.home / FORGETTING_KEY, problem)
    yield from in_lines(settings, sought, files_at(settings, _DAMAGED_IDS))


def _without_damaged_ids(settings: Settings, sought: Sought) -> Forgot:
    """Whoever asked has asked again; the ids themselves are needed until all else is removed."""
    yield from from_lines(settings, sought, files_at(settings, _DAMAGED_IDS))


def _out_of_airflow(settings: Settings, sought: Sought) -> Forgot:
    logs, database = _AIRFLOW
    yield from over_lines(settings, sought, files_at(settings, logs))
    for path in files_at(settings, database):
        yield from from_texts_of_database(
            settings, sought, path, _AIRFLOW_TEXTS, keys=_AIRFLOW_KEYS, unless=_ABOUT_SECRETS
        )


def _in_whatever_else(settings: Settings, sought: Sought) -> Found:
    """What no declaration covers: it is for a person to look at."""
    yield from in_files(settings, sought, _undeclared(settings))


def _undeclared(settings: Settings) -> list[Path]:
    declared = [one for one in PERSONAL if one is not WHATEVER_ELSE]
    found = files_at(settings, *(f"{area}/**/*" for area in AREAS))
    return [
        path for path in found if not any(one.covers(place_of(settings, path)) for one in declared)
    ]


def not_searched(settings: Settings) -> list[str]:
    """What stands in the state root beside the areas that are searched: somebody has put it there.
    Hidden names and, where the state root is the repository, those of the product are left out."""
    ours = {*AREAS, *(_PRODUCT if (settings.home / "include" / "recsys").is_dir() else ())}
    names = (path.name for path in settings.home.glob("*") if not path.name.startswith("."))
    return sorted(set(names) - ours)


NOBODY: Final = PersonalData(
    "figures, products, settings and pages, which name no customer",
    (
        *("data/versions/*/*products*", "data/versions/*/data_stats.json"),
        *(f"data/outcomes/day=*/{one}.parquet" for one in ("groups", "products", "slices")),
        *("data/outcomes/day=*/totals.json", "data/outcomes/*.json", "logs/outcome_metrics.db"),
        *("artifacts/cf/*/*/*products*", "artifacts/cf/*/*/item_ids.json"),
        *("artifacts/cf/*/*/evaluation.json", "artifacts/cf/*/*/model/*", "artifacts/cf/tuning/*"),
        *("data/embeddings/*/*", "data/comments/**/*", "artifacts/cf/fits/**/*"),
        *("**/tokenizer.json", "config/**/*", "reports/**/*.html"),
    ),
    "they are made of many customers, or of none",
    "with what they belong to",
    None,
)

WHATEVER_ELSE: Final = PersonalData(
    "files of unknown origin",
    ("**/*",),
    "somebody has put them there",
    "until somebody removes them",
    _in_whatever_else,
    forget=lambda settings, sought: from_files(settings, sought, _undeclared(settings)),
)

PERSONAL: Final = (
    *of_data.PERSONAL,
    # Made from all that is before them: forgetting goes in this order.
    replace(of_data.VERSIONS, forget=forget_in_versions),
    replace(of_models.MODELS, forget=forget_in_models),
    *of_outcomes.PERSONAL,
    *live_events.PERSONAL,
    *OF_REQUESTS,
    PersonalData(
        "lines of log files",
        _LOGS,
        "to see what the service and the jobs do",
        "{days} days after a file is full (`keep_log_days` of `maintenance.yaml`)",
        lambda settings, sought: in_lines(settings, sought, _log_files(settings)),
        lambda settings: load_config(settings, MaintenanceConfig).keep_log_days,
        lambda settings, sought: over_lines(settings, sought, _log_files(settings)),
    ),
    PersonalData(
        "records of runs and of alerts",
        _RECORDS,
        "to see what ran, and what was told to whom; they name customers by accident at most",
        "runs a year, alerts 90 days",
        _in(_RECORDS),
        forget=_out_of(_RECORDS),
    ),
    PersonalData(
        "reports",
        _REPORTS,
        "for people to read; they name customers by accident at most",
        "{days} days (`keep_report_days` of `maintenance.yaml`), those of health 90",
        _in(_REPORTS),
        lambda settings: load_config(settings, MaintenanceConfig).keep_report_days,
        _out_of(_REPORTS),
    ),
    PersonalData(
        "Airflow's records and task logs",
        _AIRFLOW,
        "to see what a task did; they name customers by accident at most",
        "{days} days (`airflow.keep_days` of `maintenance.yaml`)",
        _in_airflow,
        lambda settings: load_config(settings, MaintenanceConfig).airflow.keep_days,
        _out_of_airflow,
    ),
    PersonalData(
        "ids of those who are to be forgotten",
        (FORGETTING_KEY, _DAMAGED_IDS),
        "to find what has to be removed; the register has pseudonyms alone",
        "until the job `forget_customers` has removed all",
        _to_be_forgotten,
        forget=_without_damaged_ids,
    ),
    PersonalData(
        "the register of requests, the log of it, and the key of pseudonyms",
        (f"{PRIVACY_KEY}/*.json", f"{AUDIT_KEY}*"),
        "to prove that a request was answered; pseudonyms alone",
        "for good",
        None,
    ),
    PersonalData(
        "lists and audiences for mails",
        _LISTS,
        "`export-lists` and `audience` write them where somebody says",
        "until somebody removes them",
        _in(_LISTS),
        forget=_out_of(_LISTS),
    ),
    NOBODY,
    WHATEVER_ELSE,
)
"""Every place, each thing in the first that covers it."""


def sought(settings: Settings, given: Iterable[str | int]) -> Sought:
    """The customers `given` by their ids, with the sessions in which nobody else was logged in,
    and their pseudonyms. Raises `InputError` for what is no id."""
    known, pseudonyms = Sought.of(given), load_pseudonyms(settings)
    names = {name: one for one in known.ids for name in pseudonyms.all_of(one)}
    tables = itertools.chain(of_data.session_pairs(settings), of_outcomes.session_pairs(settings))
    pairs = pa.concat_tables([_pairs(one) for one in tables] or [_NO_PAIRS])
    pairs = pairs.group_by([USER, SESSION]).aggregate([])
    theirs = pc.is_in(pairs[USER], value_set=pa.array(sorted(known.ids), pa.large_string()))
    sessions = pairs.filter(pc.is_in(pairs[SESSION], value_set=pairs.filter(theirs)[SESSION]))
    alone: dict[str, str] = {}
    for user, session in zip(
        *(sessions[name].to_pylist() for name in (USER, SESSION)), strict=True
    ):
        alone[session] = user if session not in alone else ""
    return Sought(known.ids, {session: user for session, user in alone.items() if user}, names)


def find(
    settings: Settings, customers: Sought
) -> Iterator[tuple[PersonalData, Record | Unread | Doubtful]]:
    """Everything that is kept of the customers, by declaration, in one pass over each place."""
    for declared in PERSONAL:
        if declared.find is not None:
            for found in declared.find(settings, customers):
                yield declared, found


def named_ids(settings: Settings) -> Iterator[Iterable[str]]:
    """Every id of a customer that stands where one is named, in the one spelling."""
    found = files_at(settings, *(f"{area}/**/*" for area in AREAS))
    columns = itertools.chain(
        of_data.id_columns(settings),
        of_models.id_columns(settings),
        of_outcomes.id_columns(settings),
        id_columns(path for path in found if not NOBODY.covers(place_of(settings, path))),
    )
    for column in columns:
        distinct = pc.unique(column.cast(pa.large_string())).drop_null()
        yield normalise_ids(pa.chunked_array([distinct])).to_pylist()


_NO_PAIRS: Final = pa.table({name: pa.array([], pa.large_string()) for name in (USER, SESSION)})


def _pairs(table: pa.Table) -> pa.Table:
    columns = {
        name: normalise_ids(pc.fill_null(table[name].cast(pa.large_string()), ""))
        for name in (USER, SESSION)
    }
    both = pa.table(columns)
    named = pc.and_(pc.not_equal(both[USER], ""), pc.not_equal(both[SESSION], ""))
    return both.filter(named).group_by([USER, SESSION]).aggregate([])
