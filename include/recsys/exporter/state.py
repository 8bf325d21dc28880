"""Figures of the state root, read anew at every scrape from the records that the jobs keep.

Each part stands alone: of one that cannot be read ``recsys_exporter_sound`` says so, and its
figures are missing, not wrong. What is not known has no series; labels have closed sets of values.
"""

import json
import logging
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any, Final

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from recsys.alerting.state import FAILED, AlertState
from recsys.config import load_config
from recsys.data.versions import current_version, published_folder
from recsys.errors import InputError
from recsys.health.config import HealthConfig
from recsys.health.examination import COMPONENTS
from recsys.health.pipelines import WATCHER, owed_since
from recsys.health.reports import latest_report
from recsys.registry import Registry
from recsys.schedule import load_schedule
from recsys.settings import Settings
from recsys.storage import StorageError
from recsys.tracking import PipelineTracker, RunStatus, tracker_database

logger = logging.getLogger(__name__)

OTHERS: Final = "others"
"""Stands for pipelines that are no jobs of the schedule, and for alerts beyond `MOST_ALERTS`."""

MOST_ALERTS: Final = 50
TOLD_WITHIN: Final = timedelta(days=1)
STATS_DAYS: Final = 7
_QUALITY: Final = ("recall_at_10", "ndcg_at_10")
_SEVERITIES: Final = {"low": 0, "medium": 1, "high": 2}
_STATUSES: Final = {"healthy": 0, "warning": 1, "critical": 2}
_DATABASE_SECONDS: Final = 2.0
_TROUBLE: Final = (InputError, StorageError, OSError, sqlite3.Error)
_DAMAGE: Final = (ValueError, KeyError, TypeError, AttributeError)

Parts = Mapping[str, Callable[[Settings, datetime], Iterator[Metric]]]


class StateFigures(Collector):
    """What the jobs have recorded below `settings`, at the moment that `clock` tells."""

    def __init__(
        self, settings: Settings, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._settings, self._clock = settings, clock
        self._unsound: set[str] = set()

    def collect(self) -> Iterator[Metric]:
        now = self._clock()
        sound = _gauge("exporter_sound", "1 while the part can be read, else 0.", "part")
        for part, read in PARTS.items():
            try:
                yield from list(read(self._settings, now))
            except (*_TROUBLE, *_DAMAGE) as error:
                if part not in self._unsound:
                    logger.warning("Figures cannot be read | part=%s, error=%r", part, error)
                self._unsound.add(part)
                sound.add_metric([part], 0)
            else:
                self._unsound.discard(part)
                sound.add_metric([part], 1)
        yield sound
        yield _value("exporter_clock_timestamp_seconds", "The exporter's clock.", now.timestamp())


def _pipelines(settings: Settings, now: datetime) -> Iterator[Metric]:
    tracker = PipelineTracker(tracker_database(settings), timeout=_DATABASE_SECONDS)
    schedule = load_schedule(settings)
    runs = _gauge("pipeline_runs", "Runs of the last seven days.", "pipeline", "status")
    stats = tracker.get_stats(STATS_DAYS)["stats_by_pipeline"]
    for status in RunStatus:
        for job in schedule.names:
            runs.add_metric([job, status], stats.get(job, {}).get(status, 0))
        others = (one[status] for name, one in stats.items() if name not in schedule.names)
        runs.add_metric([OTHERS, status], sum(others))
    yield runs
    succeeded = _gauge("pipeline_success_timestamp_seconds", "Start of the last success.", *_JOB)
    failed = _gauge("pipeline_failure_timestamp_seconds", "Start of the last failure.", *_JOB)
    lasted = _gauge("pipeline_duration_seconds", "Of the last success.", *_JOB)
    running = _gauge("pipeline_running_seconds", "Since when a run is open, 0 if none.", *_JOB)
    deadline = _gauge("pipeline_deadline_seconds", "What a run may take.", *_JOB)
    due = _gauge("pipeline_due_timestamp_seconds", "Since when a success is owed.", *_JOB)
    for job, timing in schedule.jobs.items():
        deadline.add_metric([job], timing.deadline.total_seconds())
        success, failure, is_open = (_last(tracker, job, one) for one in _WATCHED)
        # A job that never succeeded did so at the beginning of time: every failure is later.
        succeeded.add_metric([job], _seconds(success, "started_at") if success else 0)
        if success:
            lasted.add_metric([job], success["duration_seconds"] or 0)
        if failure:
            failed.add_metric([job], _seconds(failure, "started_at"))
        begun = _seconds(is_open, "started_at") if is_open else now.timestamp()
        running.add_metric([job], max(0.0, now.timestamp() - begun))
    for job, since in owed_since(settings, schedule, now).items():
        due.add_metric([job], since.timestamp())
    yield from (succeeded, failed, lasted, running, deadline, due)


_JOB: Final = ("pipeline",)
_WATCHED: Final = (RunStatus.SUCCESS, RunStatus.FAILED, RunStatus.RUNNING)


def _last(tracker: PipelineTracker, job: str, status: RunStatus) -> dict[str, Any] | None:
    return next(iter(tracker.get_recent_runs(job, limit=1, status=status)), None)


def _data(settings: Settings, now: datetime) -> Iterator[Metric]:
    most = load_config(settings, HealthConfig).data.max_age_days * 86_400
    yield _value("data_max_age_seconds", "How old the newest row may be (health.yaml).", most)
    if published_folder(settings) is None:
        return
    version = current_version(settings)
    stats = version.stats()
    yield _value("data_version_timestamp_seconds", "Its view's end.", version.as_of.timestamp())
    if stats.get("last_at"):
        newest = datetime.fromisoformat(stats["last_at"]).timestamp()
        yield _value("data_newest_timestamp_seconds", "The newest review or purchase.", newest)
    rows = _gauge("data_rows", "What the published version holds.", "what")
    for what in ("interactions", "users", "products"):
        rows.add_metric([what], stats[what])
    yield rows
    if stats.get("mean_comment_quality") is not None:
        quality = stats["mean_comment_quality"]
        yield _value("data_comment_quality", "Mean quality of its comments, 0 to 1.", quality)


def _model(settings: Settings, now: datetime) -> Iterator[Metric]:
    registry = Registry(settings)
    selection, best = registry.selection(), registry.current_best()
    if selection is None or best is None:
        return
    chosen = datetime.fromisoformat(selection.selected_at).timestamp()
    yield _value("model_selected_timestamp_seconds", "When the current best was chosen.", chosen)
    quality = _gauge("model_quality", "Of the current best, as it was measured.", "measure")
    known = {**best.metrics, **best.baseline_comparison}
    for measure in (*_QUALITY, "baseline_recall_at_10"):
        if isinstance(known.get(measure), int | float):
            quality.add_metric([measure], known[measure])
    yield quality


def _drift(settings: Settings, now: datetime) -> Iterator[Metric]:
    reports = _newest_first(settings.reports / "drift", "drift_report_*.json")
    report = next(reports, None)
    if report is None:
        return
    # A week that could not be judged takes back nothing that was found before.
    found = (_SEVERITIES.get(one["overall_severity"]) for one in (report, *islice(reports, 8)))
    severity = next((one for one in found if one is not None), None)
    at = datetime.fromisoformat(report["generated_at"]).timestamp()
    yield _value("drift_report_timestamp_seconds", "When drift was last looked for.", at)
    if severity is not None:
        text = "Of the last week that was judged: 0 low, 1 medium, 2 high."
        yield _value("drift_severity", text, severity)


def _health(settings: Settings, now: datetime) -> Iterator[Metric]:
    config, enabled = load_config(settings, HealthConfig), load_schedule(settings).jobs
    if WATCHER in enabled and enabled[WATCHER].enabled:
        most = config.reports.overdue_hours * 3600
        yield _value("health_report_max_age_seconds", "How old it may be (health.yaml).", most)
    path = latest_report(settings)
    if path is None:
        return
    report = json.loads(path.read_text(encoding="utf-8"))
    at = datetime.fromisoformat(report["generated_at"]).timestamp()
    yield _value("health_report_timestamp_seconds", "When the last full report was made.", at)
    health = _gauge("health", "Of a component: 0 healthy, 1 warning, 2 critical.", "component")
    for component in COMPONENTS:
        check = report["checks"].get(component)
        if check is not None:
            status = "healthy" if check["healthy"] else check["severity"]
            health.add_metric([component], _STATUSES[status])
    yield health


def _outcomes(settings: Settings, now: datetime) -> Iterator[Metric]:
    report = next(_newest_first(settings.reports / "outcomes", "outcomes_*.json"), None)
    if report is not None:
        at = datetime.fromisoformat(report["generated_at"]).timestamp()
        yield _value("outcome_report_timestamp_seconds", "When the report was made.", at)
        totals = _gauge("outcomes", "Of the last 28 days.", "what")
        for what in ("lists", "clicks", "carts", "purchases", "value"):
            if what in report["totals"]:
                totals.add_metric([what], report["totals"][what])
        yield totals
    tracker = PipelineTracker(tracker_database(settings), timeout=_DATABASE_SECONDS)
    run = _last(tracker, "outcomes", RunStatus.SUCCESS)
    found = ((run or {}).get("metadata", {}).get("summary") or {}).get("alert") or {}
    if found.get("silence") is not None:
        text = "Customers shown lists since the last event, as a share of what is no chance."
        yield _value("tracking_silence_ratio", text, found["silence"])
    if found.get("lost_share") is not None:
        yield _value("served_lists_lost_ratio", "Of seven days.", found["lost_share"])
    falls = _gauge("rate_fall_ratio", "By which a rate is proven to have fallen.", "rate")
    for rate in ("click", "purchase"):
        fall = (found.get("proven_falls") or {}).get(rate)
        if fall is not None:
            falls.add_metric([rate], fall)
    yield falls


def _alerts(settings: Settings, now: datetime) -> Iterator[Metric]:
    told = _gauge("alert_told_timestamp_seconds", "When it was last told.", "alert", "severity")
    failing = _gauge("alert_channel_failing", "1 if the last delivery failed.", "channel")
    path = settings.logs / "service" / "alert_state.db"
    if path.is_file():
        state = AlertState(path, timeout=_DATABASE_SECONDS)
        latest: dict[tuple[str, str], float] = {}
        for number, (name, severity, at) in enumerate(state.told_since(now - TOLD_WITHIN)):
            key = (name if number < MOST_ALERTS else OTHERS, severity)
            latest[key] = max(at.timestamp(), latest.get(key, 0))
        for labels, moment in latest.items():
            told.add_metric(labels, moment)
        for channel, status in state.last_deliveries().items():
            failing.add_metric([channel], status == FAILED)
    yield from (told, failing)


def _disk(settings: Settings, now: datetime) -> Iterator[Metric]:
    found = shutil.disk_usage(settings.home)
    yield _value("disk_free_bytes", "Free on the disk of the state root.", found.free)
    yield _value("disk_size_bytes", "Size of that disk.", found.total)


PARTS: Final[Parts] = {
    "pipelines": _pipelines,
    "data": _data,
    "model": _model,
    "drift": _drift,
    "health": _health,
    "outcomes": _outcomes,
    "alerts": _alerts,
    "disk": _disk,
}


def _newest_first(folder: Path, names: str) -> Iterator[dict[str, Any]]:
    """The reports: their names sort by time."""
    for path in sorted(folder.glob(names), reverse=True):
        yield dict(json.loads(path.read_text(encoding="utf-8")))


def _seconds(run: Mapping[str, Any], key: str) -> float:
    return datetime.fromisoformat(run[key]).timestamp()


def _gauge(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"recsys_{name}", text, labels=labels)


def _value(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"recsys_{name}", text, value)
