"""The weekly job: examine the last full week, write the report, and what follows from it."""

import json
import logging
import time
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from recsys import schema
from recsys.alerting import AlertManager
from recsys.arrays import Float32Array
from recsys.config import load_config
from recsys.content.embeddings import current_embeddings
from recsys.data.config import DataConfig
from recsys.data.versions import PublishedVersion, current_version
from recsys.drift import model as drift_model
from recsys.drift import weeks
from recsys.drift.checks import GAP_WEEKS, HISTORY_WEEKS, sentence_keys
from recsys.drift.config import DriftConfig, HolidayCalendar
from recsys.drift.examination import Material, examine
from recsys.drift.kinds import WeeklyKinds, weekly_kinds
from recsys.drift.model import Prediction, model_before
from recsys.drift.page import render_drift_pages
from recsys.drift.report import NOT_JUDGED, build_report
from recsys.drift.weeks import Events, Week, events_of, product_names
from recsys.errors import InputError
from recsys.publishing import write_json
from recsys.reporting import write_pages
from recsys.schedule import DataInterval, load_zone
from recsys.settings import Settings

logger = logging.getLogger(__name__)

REPORTS_FOLDER = "drift"
ALERT_NAME = "data_drift"
_LOOKED_AT = 5000  # alerts; those of weeks
_ALERT_SEVERITY = {"medium": "warning", "high": "critical"}
_LAST_RETRAIN = "last_retrain.json"


def detect_drift(
    settings: Settings, interval: DataInterval, reference_days: int | None = None
) -> dict[str, Any]:
    """Examine the last week that is over at the end of `interval` and write its report.

    Writes ``reports/drift/drift_report_YYYYMMDD.json``, ``.html`` and ``.en.html``, dated by the
    Monday after the week. The same data give the same report, whatever was reported before; the
    pages lead to those of before. `reference_days` overrides the length of the reference.

    Returns ``report_date``, ``report`` and ``page`` (paths below the state root),
    ``overall_severity``, ``raised``, ``not_judged``, ``recommendations``, ``data_version``,
    ``events``, ``rows``, ``duration_seconds``. Raises `InputError` if nothing is published, or the
    configuration or `reference_days` is wrong."""
    began = time.monotonic()
    zone = load_zone(settings)
    config = with_reference_days(load_config(settings, DriftConfig), reference_days)
    calendar = load_config(settings, HolidayCalendar)
    week = Week.last_full(interval.end, zone)
    version = current_version(settings)
    material, recent = _read(settings, version, week, config)
    examination = examine(material, week, config, calendar)
    report = build_report(
        examination,
        generated_at=datetime.now(zone).isoformat(timespec="seconds"),
        data={
            "version_id": version.version_id,
            "as_of": version.as_of.isoformat(),
            "covers_window": version.as_of >= week.end,
        },
        reference_kind="moving" if material.reference_stop is None else "model",
        false_discovery_rate=config.false_discovery_rate,
        names=product_names(version.products()),
        calendar=calendar,
        events=recent,
    )
    path = settings.reports / REPORTS_FOLDER / f"drift_report_{week.end:%Y%m%d}.json"
    page = path.with_suffix(".html")
    write_pages(page, render_drift_pages(report, page, zone))
    write_json(path, report)
    told = ("report_date", "overall_severity", "raised", "not_judged", "recommendations")
    window = report["windows"]["new"]
    summary = {
        **{key: report[key] for key in told},
        "report": str(path.relative_to(settings.home)),
        "page": str(page.relative_to(settings.home)),
        "data_version": version.version_id,
        **{key: window[key] for key in ("events", "rows")},
        "duration_seconds": round(time.monotonic() - began, 2),
    }
    logger.info("Drift report written | %s", summary)
    return summary


def alert_on_drift(settings: Settings, summary: Mapping[str, Any]) -> dict[str, Any]:
    """Send the alert that the report of `summary` (see `detect_drift`) asks for.

    High severity is critical, medium a warning; low sends nothing and clears an earlier alert, if
    all checks that it was about could be judged. Returns ``alert`` (its severity, None without
    one) and ``channels``."""
    manager = AlertManager(settings)
    severity = _ALERT_SEVERITY.get(str(summary["overall_severity"]))
    week = f"drift report {summary['report_date']}"
    if severity is None:
        unjudged = summary["not_judged"]
        known = summary["overall_severity"] != NOT_JUDGED
        if known and not _raised_before(manager) & set(unjudged):
            said = [f"Nothing that was judged is raised in the {week}"]
            if unjudged:
                said.append(f"not judged: {', '.join(unjudged)}")
            manager.resolve(ALERT_NAME, "; ".join(said))
        return {"alert": None, "channels": {}}
    raised = ", ".join(summary["raised"])
    told = "\n".join(summary["recommendations"][: len(summary["raised"])])
    facts = {name: summary[name] for name in ("report_date", "report", "page")}
    facts |= {"raised": raised, "advice": told}
    channels = manager.send_alert(
        ALERT_NAME, f"drift of {raised} in the {week}", severity, context=facts
    )
    return {"alert": severity, "channels": channels}


def _raised_before(manager: AlertManager) -> set[str]:
    """The checks that the last alert is about, none if it is over."""
    for row in manager.recent(_LOOKED_AT):
        if row["alert"].name == ALERT_NAME and not row["alert"].resolved:
            raised = row["alert"].facts.get("raised", "")
            return set() if row["resolved_at"] else set(raised.split(", "))
    return set()


def reason_to_retrain(settings: Settings, summary: Mapping[str, Any], now: datetime) -> str | None:
    """Why the model must be trained again because of the report, None when it need not.

    A report of high severity is a reason, at most once per cool-down; asking again about the
    same report gives the same answer, so that a repeated task does not lose its training."""
    actions = load_config(settings, DriftConfig).actions
    if summary["overall_severity"] != "high" or not actions.retrain_on_drift:
        return None
    state, date = settings.reports / REPORTS_FOLDER / _LAST_RETRAIN, summary["report_date"]
    last = _last_decision(state)
    raised = ", ".join(summary["raised"])
    reason = f"drift report {date} is of high severity ({raised}); see {summary['report']}"
    if last is None or last[0] != date:
        if last is not None and now - last[1] < timedelta(days=actions.retrain_cooldown_days):
            return None
        decided_at = now.isoformat(timespec="seconds")
        write_json(state, {"report_date": date, "decided_at": decided_at, "reason": reason})
    return reason


def _last_decision(note: Path) -> tuple[str, datetime] | None:
    """Report and moment of the last training that was asked for, None without one that can be
    read: rather one training too many than none any more."""
    try:
        last = json.loads(note.read_bytes())
        return last["report_date"], datetime.fromisoformat(last["decided_at"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        logger.warning("The note of the last training is damaged | file=%s, error=%r", note, error)
        return None


def with_reference_days(config: DriftConfig, reference_days: int | None) -> DriftConfig:
    """`config` with a reference of at least `reference_days`, in whole weeks."""
    if reference_days is None:
        return config
    if reference_days < 28:
        raise InputError(
            f"reference_days: {reference_days} is too short; expected at least 28: fewer than "
            "four weeks do not show how much an unchanged week varies"
        )
    return config.model_copy(update={"reference_weeks": -(-reference_days // 7)})


def _read(
    settings: Settings, version: PublishedVersion, week: Week, config: DriftConfig
) -> tuple[Material, Events]:
    """The material of the checks, and the recent events for the plots."""
    past = model_before(settings, week.before(1).start)
    columns = dict.fromkeys([*weeks.COLUMNS, *(drift_model.COLUMNS if past else ())])
    rows = version.interactions(list(columns))
    rows = rows[rows[schema.TIMESTAMP] < pd.Timestamp(week.end)]
    stop = None
    if past and config.reference == "model":  # ends with the model's last full week of training
        trained = Week.last_full(past.trained_until + timedelta(days=1), week.zone).number + 1
        stop = min(trained, week.number - GAP_WEEKS)
    weeks_back = 1 + GAP_WEEKS + max(config.reference_weeks, HISTORY_WEEKS)
    if stop is not None:
        weeks_back = max(weeks_back, week.number - stop + config.reference_weeks)
    events = events_of(rows, week.zone, week.number - 2 * weeks_back)
    # Texts of earlier weeks are not even looked at: reading them is most of the work.
    recent = events.between(week.number - weeks_back, week.number + 1)
    material = Material(
        recent,
        keys=None if recent.comments is None else sentence_keys(recent.comments),
        vectors=_vectors(settings, events.product_ids),
        prediction=Prediction(past, rows) if past else None,
        kinds=_kinds(settings, version, week),
        reference_stop=stop,
        ends=version.as_of,
    )
    return material, events


def _kinds(settings: Settings, version: PublishedVersion, week: Week) -> WeeklyKinds | None:
    """What customers did besides rating; None where the version has no signals."""
    signals = version.signals([schema.USER, schema.KIND, schema.TIMESTAMP])
    if signals.empty:
        return None
    kept_from = version.as_of - load_config(settings, DataConfig).views_count_for
    return weekly_kinds(signals, week.zone, kept_from)


def _vectors(settings: Settings, product_ids: pd.Index) -> Float32Array | None:
    """Embeddings in the order of `product_ids`, NaN where a product has none."""
    try:
        embeddings = current_embeddings(settings)
    except InputError as error:  # the other checks do not need them; the report says so
        logger.warning("Embeddings cannot be read | error=%s", error)
        return None
    return None if embeddings is None else embeddings.vectors_of(product_ids, missing=np.nan)
