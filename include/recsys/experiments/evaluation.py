"""What the running experiments say by now: the job ``outcomes`` asks every hour.

Reads ``data/outcomes/day=*/units.parquet`` and the request log, stops what breaks a guardrail or is
divided wrongly, and writes ``reports/experiments/<name>.json`` and its pages."""

import logging
import math
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from recsys.alerting import Alert, AlertManager, Severity
from recsys.alerting.message import Channel
from recsys.arrays import Float64Array
from recsys.errors import InputError
from recsys.experiments.definitions import COLUMNS, HOLDOUT, Definition, Experiment, Variant
from recsys.experiments.guardrails import Traffic, broken_guardrail, together
from recsys.experiments.page import render_experiment_pages
from recsys.experiments.planning import Plan, plan
from recsys.experiments.state import BY, REPORTS, Experiments, model_of
from recsys.experiments.statistics import (
    ALPHA,
    MIN_ACTIVE_UNITS,
    RATIO_ALPHA,
    Difference,
    Sums,
    difference,
    ratio_evidence,
    running_sums,
)
from recsys.experiments.verdicts import Comparison, Verdict, decide, ended, stopped
from recsys.language import LANGUAGES
from recsys.publishing import write_json
from recsys.registry import Registry, RegistryError
from recsys.reporting import write_pages
from recsys.request_log import read_traffic_by_model
from recsys.schedule import load_zone
from recsys.settings import Settings

logger = logging.getLogger(__name__)

STOPPED_ALERT = "experiment_stopped"
DECIDED_ALERT = "experiment_decided"

PAST_DAYS = 56
"""Of so many days the plan learns."""

_RATIO_LIMIT = -math.log(RATIO_ALPHA)
_WATCHED_MINUTES = 60.0
_LATE = timedelta(days=8)  # a purchase counts for a list of the week before
_UNIT_COLUMNS = ("experiment", "variant", "unit", "lists", "clicks", "carts", "purchases", "value")


class _Counted(NamedTuple):
    """Running sums of each variant by metric, after each of the `days`, and the share of lists that
    were left to a fallback, with the unit as the unit."""

    days: list[date]
    sums: Mapping[str, list[Sums]]
    fallbacks: list[Sums]


def evaluate(settings: Settings, now: datetime) -> dict[str, Any]:
    """Judge every running experiment as of `now`. Returns ``verdicts`` by name, and the path of the
    page of each. Raises `InputError` if the state is damaged and has no good copy."""
    experiments = Experiments(settings)
    verdicts: dict[str, str] = {}
    pages: dict[str, str] = {}
    for experiment in experiments.all():
        if not _is_news(experiment, now):
            continue
        if experiment.definition.primary_metric is None:
            verdicts[experiment.name] = _watch(settings, experiments, experiment, now).word
            continue
        verdict, page = _evaluate(settings, experiments, experiment, now)
        verdicts[experiment.name] = verdict.word
        pages[f"page_of_{experiment.name}"] = page.relative_to(settings.home).as_posix()
    return {"verdicts": verdicts, **pages}


def _is_news(experiment: Experiment, now: datetime) -> bool:
    """Whether it runs, or a person ended it and its lists may still have outcomes."""
    if experiment.ended_at is None:
        return True
    measured = experiment.definition.primary_metric is not None
    late = now - experiment.ended_at <= _LATE
    return measured and late and experiment.ended_by != BY


def plan_experiment(settings: Settings, definition: Definition, today: date) -> Plan:
    """How long `definition` has to run, from the shop's days before `today`. The smallest side
    decides. Raises `InputError` if the past tells too little, or nothing is measured."""
    metric = definition.primary_metric or "clicks_per_list"
    numerator, denominator, _ = COLUMNS[metric]
    days = [today - timedelta(days=number) for number in range(PAST_DAYS, 0, -1)]
    past = _read_days(settings, days)
    past = past[past["experiment"] != HOLDOUT]
    control, *others = (one.share for one in definition.variants)
    return plan(
        past,
        metric,
        numerator,
        denominator,
        effect=definition.smallest_effect,
        shares=(control, min(others or [control])),
        alpha=_alpha(definition),
    )


def _evaluate(
    settings: Settings, experiments: Experiments, experiment: Experiment, now: datetime
) -> tuple[Verdict, Path]:
    definition = experiment.definition
    counted = _count(settings, experiment, now)
    metric = str(definition.primary_metric)
    information = _information(experiments, experiment, counted.sums[metric], now)
    compared = _compare(definition, counted.sums[metric], information)
    if not experiment.running:
        verdict = ended(experiment)
    elif (stopping := _stopping(settings, experiment, counted)) is not None:
        verdict = stopping
    else:
        verdict = decide(definition, compared, experiment.days(now))
    if not experiment.running:
        pass  # whoever ended it knows
    elif verdict.word == "stopped":
        experiments.stop(experiment.name, BY, verdict.english, now)
        _tell_of_stop(settings, experiment, verdict)
    elif verdict.word != "running":
        _tell_of_decision(settings, experiment, verdict)
    experiment = experiments.get(experiment.name)
    report = _report(experiment, counted, compared, information, verdict, now)
    report["guardrails"] |= {"watched": settings.service_db.exists()}
    path = settings.reports / REPORTS / f"{experiment.name}.json"
    write_json(path, report)
    page, begun_before = path.with_suffix(".html"), _before(experiments, experiment)
    write_pages(page, render_experiment_pages(report, page, load_zone(settings), begun_before))
    return verdict, page


def _before(experiments: Experiments, experiment: Experiment) -> list[Experiment]:
    """The measured ones that began before it, the newest first."""
    found = [
        one
        for one in experiments.all()
        if one.definition.primary_metric is not None and one.started_at < experiment.started_at
    ]
    return sorted(found, key=lambda one: one.started_at, reverse=True)


def _watch(
    settings: Settings, experiments: Experiments, experiment: Experiment, now: datetime
) -> Verdict:
    """Of what has guardrails only (the canary): does one break, or is its time over?"""
    verdict = _broken(settings, experiment)
    if verdict is None and experiment.days(now) > experiment.definition.longest_days:
        verdict = stopped("time", days=experiment.definition.longest_days)
    if verdict is None:
        return decide(experiment.definition, [], experiment.days(now))
    experiments.stop(experiment.name, BY, verdict.english, now)
    _tell_of_stop(settings, experiment, verdict)
    return verdict


def _stopping(settings: Settings, experiment: Experiment, counted: _Counted) -> Verdict | None:
    """Why nobody may go on with the experiment, None if nothing speaks against it."""
    definition = experiment.definition
    if broken := _broken(settings, experiment):
        return broken
    control, limit = counted.fallbacks[0], definition.guardrails.max_fallback_increase
    for variant, side in zip(definition.variants[1:], counted.fallbacks[1:], strict=True):
        if not len(side.units) or min(control.units[-1], side.units[-1]) < MIN_ACTIVE_UNITS:
            continue
        more = difference(_last(control), _last(side), 1.0)
        if more.value - 4 * more.error > limit:
            shares = {"share": float(more.other_rate), "other_share": float(more.control_rate)}
            return stopped("fallbacks", side=variant.name, **shares)
    evidence = _ratio_evidence(definition, counted)
    if evidence is not None and evidence > _RATIO_LIMIT:
        return stopped("ratio", units=_units(counted))
    return None


def _broken(settings: Settings, experiment: Experiment) -> Verdict | None:
    """The guardrail that a side broke in the last hour, by the request log."""
    if not settings.service_db.exists():
        return None
    try:
        rows = read_traffic_by_model(settings.service_db, _WATCHED_MINUTES)
    except sqlite3.Error as error:
        logger.warning("The request log cannot be read | error=%s", error)
        return None
    traffic: dict[str, Traffic] = {str(row["model_id"]): row for row in rows}
    definition, registry = experiment.definition, Registry(settings)
    sides = definition.variants[1:] if definition.primary_metric else definition.variants
    models = {variant.name: _model_id(registry, variant) for variant in sides}
    others = together(row for name, row in traffic.items() if name not in models.values())
    for name, model_id in models.items():
        ours = traffic.get(model_id or "")
        if found := broken_guardrail(ours, others, definition.guardrails):
            unit = "ms" if found.rate == "avg_latency_ms" else "share"
            rates = {unit: found.ours, f"other_{unit}": found.theirs}
            return stopped(found.rate, model=model_id, side=name, **rates)
    return None


def _model_id(registry: Registry, variant: Variant) -> str | None:
    try:
        entry = model_of(registry, variant)
    except RegistryError:
        return variant.model_id
    return None if entry is None else entry.model_id


def _count(settings: Settings, experiment: Experiment, now: datetime) -> _Counted:
    zone = load_zone(settings)
    first, last = (moment.astimezone(zone).date() for moment in (experiment.started_at, now))
    # The job's clock may stand before an experiment that was started meanwhile.
    days = [first + timedelta(days=number) for number in range(max((last - first).days, 0) + 1)]
    rows = _read_days(settings, days, experiment.name)
    sides = []
    for variant in experiment.definition.variants:
        table = rows[rows["variant"] == variant.name]
        at = table["day"].to_numpy().astype("datetime64[D]")
        places = (at - np.datetime64(first)).astype(np.int64)
        sides.append((table["unit"].to_numpy(), places, table))

    def sums(numerator: str, denominator: str | None) -> list[Sums]:
        found = []
        for units, places, table in sides:
            x = table[numerator].to_numpy(dtype=np.float64)
            n = None if denominator is None else table[denominator].to_numpy(dtype=np.float64)
            found.append(_padded(running_sums(units, places, x, n), len(days)))
        return found

    metrics = {name: sums(*columns[:2]) for name, columns in COLUMNS.items()}
    return _Counted(days, metrics, sums("fallbacks", "lists"))


def _padded(sums: Sums, length: int) -> Sums:
    """`sums` for `length` days: what nobody added to stays."""
    missing = length - len(sums.units)

    def pad(values: Float64Array) -> Float64Array:
        return np.pad(values, (0, missing), mode="edge") if len(values) else np.zeros(length)

    return Sums(*(pad(one) for one in sums))


def _read_days(settings: Settings, days: list[date], experiment: str | None = None) -> pd.DataFrame:
    """The units of `days` (of one experiment) by unit and day: ``unit`` is a number, and the column
    ``day`` a ``datetime64``."""
    chosen = None if experiment is None else [("experiment", "=", experiment)]
    wanted, found = [*_UNIT_COLUMNS, "fallbacks"], {}
    for day in days:
        path = settings.outcomes / f"day={day:%Y-%m-%d}" / "units.parquet"
        if path.exists():
            found[day] = _read_units(path, wanted, chosen)
    if not found:
        return pd.DataFrame(columns=[*wanted, "day"]).astype({"day": "datetime64[s]", "unit": int})
    # A million ids as text would take most of the memory and of the time.
    table = pa.concat_tables(found.values()).unify_dictionaries()
    named = {name: table[name].combine_chunks() for name in wanted[:3]}
    content = {name: table[name].to_numpy() for name in wanted[3:]}
    for name in wanted[:2]:
        content[name] = pd.Categorical.from_codes(
            named[name].indices.to_numpy(), named[name].dictionary.to_pylist()
        )
    content["unit"] = named["unit"].indices.to_numpy()
    rows = [one.num_rows for one in found.values()]
    content["day"] = np.repeat(np.array(list(found), dtype="datetime64[D]"), rows)
    order = np.lexsort((content["day"], content["unit"]))
    return pd.DataFrame(content).take(order).reset_index(drop=True)


def _read_units(path: Path, columns: list[str], chosen: Any) -> pa.Table:
    try:
        return pq.read_table(
            path, columns=columns, filters=chosen, partitioning=None, read_dictionary=columns[:3]
        )
    except (OSError, pa.ArrowException, ValueError) as error:
        hint = "run `python -m recsys outcomes --from DAY --to DAY` for its day"
        raise InputError(f"{path}: cannot be read; {hint}: {error}") from error


def _information(
    experiments: Experiments, experiment: Experiment, sums: list[Sums], now: datetime
) -> float | None:
    """What the sequence is planned for: by the plan, else, as soon as there is enough to go by,
    what it will be when the longest duration is over. None before that."""
    if experiment.information is not None:
        return experiment.information
    if min(float(side.active[-1]) for side in sums) < MIN_ACTIVE_UNITS:
        return None
    clocks = [float(difference(_last(sums[0]), _last(side), 1.0).information) for side in sums[1:]]
    days = max(experiment.days(now), 1 / 24)
    planned = max(min(clocks) * experiment.definition.longest_days / days, min(clocks))
    if not planned > 0:
        return None
    experiments.remember_information(experiment.name, planned)
    return planned


def _compare(
    definition: Definition, sums: list[Sums], information: float | None
) -> list[Comparison]:
    """Each side against the control, after each day."""
    if information is None:
        return []
    alpha = _alpha(definition)
    return [
        Comparison(variant.name, difference(sums[0], side, information, alpha))
        for variant, side in zip(definition.variants[1:], sums[1:], strict=True)
    ]


def _alpha(definition: Definition) -> float:
    """Of one comparison: all of them together may err as often as one."""
    return ALPHA / max(1, len(definition.variants) - 1)


def _last(sums: Sums) -> Sums:
    return Sums(*(one[-1] for one in sums))


def _units(counted: _Counted) -> list[float]:
    return [float(side.units[-1]) for side in counted.sums["purchases_per_user"]]


def _ratio_evidence(definition: Definition, counted: _Counted) -> float | None:
    units = np.array(_units(counted))
    if not units.sum():
        return None
    shares = np.array([variant.share for variant in definition.variants])
    return float(ratio_evidence(units, shares / shares.sum()))


def _report(
    experiment: Experiment,
    counted: _Counted,
    compared: list[Comparison],
    information: float | None,
    verdict: Verdict,
    now: datetime,
) -> dict[str, Any]:
    """Everything that the pages show, as JSON."""
    definition = experiment.definition
    metric = str(definition.primary_metric)
    evidence = _ratio_evidence(definition, counted)
    lists = [float(side.n[-1]) for side in counted.sums["clicks_per_list"]]
    units, customers = _units(counted), counted.sums["purchases_per_user"]
    return {
        "name": experiment.name,
        "question": definition.question,
        "generated_at": now.isoformat(timespec="seconds"),
        "started_at": experiment.started_at.isoformat(timespec="seconds"),
        "started_by": experiment.started_by,
        "ended_at": experiment.ended_at and experiment.ended_at.isoformat(timespec="seconds"),
        "ended_by": experiment.ended_by,
        "ended_because": experiment.ended_because,
        "days": round(experiment.days(now), 2),
        "planned_days": experiment.planned_days,
        "longest_days": definition.longest_days,
        "placements": list(definition.placements),
        "metric": metric,
        "smallest_effect": definition.smallest_effect,
        "verdict": verdict.word,
        "winner": verdict.winner,
        "why": verdict.why,
        **{code: verdict.said(code) for code in LANGUAGES},
        "sides": [
            {
                "variant": variant.name,
                "model": variant.model_id or variant.model_type,
                "share": variant.share,
                "units": units[number],
                "lists": lists[number],
                "rates": {
                    name: _rate(counted.sums[name][number], COLUMNS[name][2]) for name in COLUMNS
                },
            }
            for number, variant in enumerate(definition.variants)
        ],
        "sample_ratio": {
            "evidence": evidence,
            "limit": _RATIO_LIMIT,
            "enough": min(units) >= MIN_ACTIVE_UNITS or (evidence or 0) > _RATIO_LIMIT,
            "sound": evidence is None or evidence <= _RATIO_LIMIT,
        },
        "guardrails": definition.guardrails.model_dump(),
        "information": information,
        "running": {one.variant: _course(counted.days, one.found) for one in compared},
        "others": {
            name: _others(definition, counted, name, information)
            for name in COLUMNS
            if name != metric and information is not None
        },
        "split": [
            {"day": day.isoformat(), "units": [float(side.units[number]) for side in customers]}
            for number, day in enumerate(counted.days)
        ],
    }


def _others(
    definition: Definition, counted: _Counted, name: str, information: float
) -> dict[str, list[dict[str, Any]]]:
    """The course of a metric that does not decide. Its intervals are narrowest when those of the
    deciding one are: clicks and dong have clocks of their own, which go alike."""
    control, *others = counted.sums[name]
    primary = counted.sums[str(definition.primary_metric)]
    found = {}
    for variant, side, decides in zip(definition.variants[1:], others, primary[1:], strict=True):
        clocks = [
            float(difference(_last(one), _last(other), 1.0).information)
            for one, other in ((control, side), (primary[0], decides))
        ]
        planned = information * clocks[0] / clocks[1] if min(clocks) > 0 else 0.0
        if planned > 0:
            compared = difference(control, side, planned, _alpha(definition))
            found[variant.name] = _course(counted.days, compared)
    return found


def _rate(sums: Sums, scale: float) -> float | None:
    n = float(sums.n[-1])
    return float(sums.x[-1]) / n * scale if n else None


def _course(days: list[date], found: Difference) -> list[dict[str, Any]]:
    """Estimate and interval after each day, relative to the control; None where nothing is said."""
    rows = []
    for number, day in enumerate(days):
        rate = float(found.control_rate[number])
        values = {name: float(getattr(found, name)[number]) for name in ("value", "low", "high")}
        said = {
            name: value / rate if np.isfinite(value) and rate > 0 else None
            for name, value in values.items()
        }
        rows.append({"day": day.isoformat(), **said})
    return rows


def _tell_of_stop(settings: Settings, experiment: Experiment, verdict: Verdict) -> None:
    said = f"experiment {experiment.name}: {verdict.english}"
    alert = Alert(STOPPED_ALERT, said, Severity.WARNING, facts=_facts(experiment, verdict))
    _tell(settings, alert, experiment, None)


def _tell_of_decision(settings: Settings, experiment: Experiment, verdict: Verdict) -> None:
    said = f"experiment {experiment.name}: {verdict.english}"
    alert = Alert(DECIDED_ALERT, said, Severity.INFO, facts=_facts(experiment, verdict))
    key = f"{experiment.name}/{verdict.word}"
    _tell(settings, replace(alert, key=key), experiment, (Channel.LOG, Channel.EMAIL))


def _facts(experiment: Experiment, verdict: Verdict) -> dict[str, str]:
    return {"experiment": experiment.name, "reason": verdict.english}


def _tell(
    settings: Settings, alert: Alert, experiment: Experiment, channels: Sequence[Channel] | None
) -> None:
    """Once for each start and verdict; that it cannot be told is logged."""
    key = f"{alert.name}:{alert.key or experiment.name}:{experiment.started_at.isoformat()}"
    try:
        once = replace(alert, key=key, until_resolved=True, event=True)
        AlertManager(settings).deliver(once, channels)
    except Exception:
        logger.exception("The alert could not be sent | alert=%s", alert.name)
