"""The trained models: a row each, what is known of one, and what served when."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

from recsys.deployment.history import Stint, read_history, stints_of
from recsys.errors import UnknownError
from recsys.orchestration.monitor.learning import Learning, gather_learning
from recsys.orchestration.monitor.overview import summary_of
from recsys.registry import CurrentBest, Entry, Registry
from recsys.settings import Settings
from recsys.tracking import PipelineTracker

MOST_COMPARED: Final = 6
_TRAININGS: Final = 100
"""Runs of the training in which the reason of a refusal is looked for."""
_PERSONAL: Final = ("newcomer_overlap", "recall_at_10_outside_best_20", "debiased_recall_at_10")
FIGURES: Final = ("recall_at_10", "ndcg_at_10", "coverage_at_10", "novelty_at_10", *_PERSONAL)
TIMELINE_DAYS: Final = 90


class Row(NamedTuple):
    """A model in the table. `state` is ``serving``, ``best``, ``held``, ``archived``, ``refused``
    (it did not pass its gates) or ``stands``."""

    entry: Entry
    state: str

    def figure(self, name: str) -> float | None:
        """A metric of it, None where it was not measured."""
        return self.entry.metrics.get(name)

    @property
    def gain(self) -> float | None:
        """By which share its recall is above that of the baseline."""
        percent = self.entry.baseline_comparison.get("improvement_pct")
        return None if percent is None else percent / 100

    @property
    def duration(self) -> float | None:
        seconds = self.entry.training_info.get("duration_seconds")
        return None if seconds is None else float(seconds)


COLUMNS: Final[Mapping[str, Callable[[Row], Any]]] = {
    "model_id": lambda row: row.entry.model_id,
    "created_at": lambda row: row.entry.created_at,
    "data_version": lambda row: row.entry.data_version,
    "recall_at_10": lambda row: row.figure("recall_at_10"),
    "ndcg_at_10": lambda row: row.figure("ndcg_at_10"),
    "gain": lambda row: row.gain,
    "newcomer_overlap": lambda row: row.figure("newcomer_overlap"),
    "duration": lambda row: row.duration,
    "commit": lambda row: row.entry.git_commit,
    "state": lambda row: row.state,
}
"""Columns of the table by name -> by what it is sorted then."""


class Bar(NamedTuple):
    """A stint on the timeline: where it begins and how long it is, as shares of the whole."""

    stint: Stint
    start: float
    width: float


class Details(NamedTuple):
    """All that is known of one model. `refused` is what the selection said, in its own words."""

    row: Row
    selection: CurrentBest | None
    refused: str | None
    learning: Learning
    stints: list[Stint]


def gather_models(settings: Settings, sort: str, down: bool) -> list[Row]:
    """All registered models by the column `sort`; those without a value come last."""
    key = COLUMNS[sort]
    rows = _rows(settings)
    known = [row for row in rows if key(row) is not None]
    known.sort(key=key, reverse=down)
    return known + [row for row in rows if key(row) is None]


def gather_stints(settings: Settings) -> list[Stint]:
    """What served when, newest first."""
    return stints_of(read_history(settings))[::-1]


def timeline(stints: Sequence[Stint], now: datetime) -> list[Bar]:
    """The stints of the last `TIMELINE_DAYS`, oldest first, for a picture."""
    first = now - timedelta(days=TIMELINE_DAYS)
    whole = (now - first).total_seconds()
    bars = []
    for stint in reversed(stints):
        start, end = max(stint.since or first, first), stint.until or now
        if end > first and stint.model_id is not None:
            place = (start - first).total_seconds() / whole
            bars.append(Bar(stint, place, max((end - start).total_seconds() / whole, 0.002)))
    return bars


def compare(settings: Settings, model_ids: Sequence[str]) -> list[Row]:
    """The rows of these models, at most `MOST_COMPARED`. Raises `UnknownError` if one is none."""
    rows = {row.entry.model_id: row for row in _rows(settings)}
    for model_id in model_ids:
        if model_id not in rows:
            raise UnknownError(f"{model_id!r}: no model of this id is registered")
    return [rows[model_id] for model_id in dict.fromkeys(model_ids)][:MOST_COMPARED]


def gather_model(
    settings: Settings, model_id: str, tracker: PipelineTracker, sort: str, down: bool
) -> Details:
    """With its trials by the column `sort`. Raises `UnknownError` for a model that is not
    registered."""
    [row] = compare(settings, [model_id])
    registry = Registry(settings)
    selection = registry.selection()
    chosen = selection if selection is not None and selection.model_id == model_id else None
    refused = None if chosen else _refusal(model_id, tracker)
    stints = [one for one in gather_stints(settings) if one.model_id == model_id]
    learning = gather_learning(registry, row.entry, sort, down)
    return Details(row, chosen, refused, learning, stints)


def _rows(settings: Settings) -> list[Row]:
    registry = Registry(settings)
    best, stints = registry.current_best(), stints_of(read_history(settings))
    serving = stints[-1].model_id if stints else None

    def state(entry: Entry) -> str:
        if entry.model_id == serving:
            return "serving"
        if best is not None and entry.model_id == best.model_id:
            return "best"
        if entry.status != "active":
            return entry.status
        return "stands" if entry.baseline_comparison.get("passes") is True else "refused"

    return [Row(entry, state(entry)) for entry in registry.list()]


def _refusal(model_id: str, tracker: PipelineTracker) -> str | None:
    """What the selection of a training said of the model."""
    if not tracker.db_path.exists():
        return None
    for run in tracker.get_recent_runs("model_training", limit=_TRAININGS):
        for result in summary_of(run).values():
            refused = result.get("refused") if isinstance(result, dict) else None
            if isinstance(refused, dict) and model_id in refused:
                return str(refused[model_id])
    return None


def hyperparameters(rows: Sequence[Row]) -> dict[str, list[Any]]:
    """Of several models, the parameters in which they differ; of one, all of them."""
    names = dict.fromkeys(name for row in rows for name in row.entry.hyperparameters)
    found = {name: [row.entry.hyperparameters.get(name) for row in rows] for name in names}
    return {
        name: values
        for name, values in found.items()
        if len(rows) == 1 or any(value != values[0] for value in values)
    }
