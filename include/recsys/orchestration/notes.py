"""What became of a run in a sentence or two: its note in Airflow's UI, failed runs too."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

LONGEST: Final = 1000
"""Characters; Airflow takes no more."""

Summary = Mapping[str, Any]
"""What each task returned, by task id."""


def note_of(job: str, summary: Summary, error: str | None) -> str | None:
    """The note of an ended run of `job`: why it failed (`error`), else what a task says itself
    (``note``), else what its results mean. None if there is nothing to say."""
    if error is not None:
        return f"Failed. {error}"[:LONGEST]
    own = (value.get("note") for value in summary.values() if isinstance(value, Mapping))
    said = next((str(note) for note in own if note), None)
    if said is None and job in _SAID:
        said = " ".join(_SAID[job](summary))
    return said[:LONGEST] if said else None


def _result(summary: Summary, task: str) -> Mapping[str, Any]:
    found = summary.get(task)
    return found if isinstance(found, Mapping) else {}


def _embeddings(summary: Summary) -> Iterator[str]:
    made = _result(summary, "embed")
    if made.get("new_set"):
        yield f"New set {made.get('set_id')}: {_count(made, 'encoded')} products encoded"
        yield f"of {_count(made, 'products')}, by {made.get('model')}."
    elif made:
        yield "Nothing new to encode."
    if reason := made.get("fallback_reason"):
        yield f"Not by the wanted model: {reason}."


def _drift(summary: Summary) -> Iterator[str]:
    found = _result(summary, "detect")
    if not found:
        return
    yield f"The week before {found.get('report_date')}: {found.get('overall_severity')}."
    if raised := _names(found.get("raised")):
        yield f"Raised: {raised}."
    if unknown := _names(found.get("not_judged")):
        yield f"Not judged: {unknown}."
    if reason := _result(summary, "summarise").get("retrain_reason"):
        yield f"Asked for a training: {reason}."


def _training(summary: Summary) -> Iterator[str]:
    trained = summary.get("train")
    for one in trained if isinstance(trained, list) else ():
        if not isinstance(one, Mapping):  # a family that failed returned nothing
            continue
        recall = one.get("recall_at_10")
        figure = f" recall {recall:.4f}" if isinstance(recall, float) else ""
        passes = "" if one.get("passes") else " (does not pass)"
        yield f"{str(one.get('model_id')).rsplit('_', 2)[0]}{figure}{passes};"
    chosen = _result(summary, "select_best")
    if not chosen:
        return
    if chosen.get("changed"):
        yield f"selected {chosen.get('model_id')}: {chosen.get('reason')}."
    else:
        yield f"{chosen.get('model_id') or 'nothing'} stays selected: {chosen.get('reason')}."


def _deployment(summary: Summary) -> Iterator[str]:
    plan, done = _result(summary, "check_gate"), _result(summary, "deploy")
    status = done.get("status")
    if status == "planned":
        yield f"Dry run: {plan.get('model_id')} would take the place of {plan.get('serving')}."
    elif status == "unchanged":
        yield f"{done.get('model_id')} serves already; verified."
    elif status is not None:
        before = done.get("previous_model_id") or "no model"
        yield f"{done.get('model_id')} took the place of {before}: {done.get('reason')}. Verified."


def _health(summary: Summary) -> Iterator[str]:
    found = _result(summary, "evaluate")
    if found:
        yield f"{str(found.get('status')).capitalize()}."
    told = {"unhealthy": "Unhealthy", "alerts": "Rules broken", "overdue_jobs": "Overdue"}
    for key, words in told.items():
        if names := _names(found.get(key)):
            yield f"{words}: {names}."


def _outcomes(summary: Summary) -> Iterator[str]:
    made, found = _result(summary, "compute"), _result(summary, "report")
    if made:
        yield f"Days made again: {len(made.get('made') or ())}."
    if lost := made.get("lost"):
        yield f"{lost:,} lists lost."
    if found:
        yield f"In {_count(found, 'days')} days {_count(found, 'lists')} lists,"
        yield f"{_count(found, 'clicks')} clicks, {_count(found, 'purchases')} purchases."
    for name, verdict in _result(_result(summary, "judge_experiments"), "verdicts").items():
        yield f"Experiment {name}: {verdict}."


def _maintenance(summary: Summary) -> Iterator[str]:
    # `summarise` returns what the steps did once more.
    steps = [step for task, step in summary.items() if task != "summarise"]
    areas = [one for step in steps for one in _areas(step)]
    freed = sum(one.get("freed_bytes") or 0 for one in areas)
    count = sum(one.get("count") or 0 for one in areas)
    dry = _result(summary, "summarise").get("dry_run")
    done = "Dry run: {} things would be removed" if dry else "{} things removed"
    yield f"{done.format(f'{count:,}')}, {freed / 2**20:,.1f} MB freed."


def _areas(step: Any) -> list[Mapping[str, Any]]:
    if not isinstance(step, Mapping):
        return []
    areas = (step, *(one for one in step.values() if isinstance(one, Mapping)))
    return [one for one in areas if isinstance(one.get("freed_bytes"), int)]


def _forgetting(summary: Summary) -> Iterator[str]:
    done = _result(summary, "forget")
    if not done:
        return
    yield f"{_count(done, 'forgotten')} of {_count(done, 'requests')} requests done."
    if still_open := done.get("open"):
        yield f"{still_open:,} are still open: see docs/privacy.md."
    if back := done.get("came_back"):
        yield f"{back:,} customers who had come back were removed again."


def _count(found: Mapping[str, Any], name: str) -> str:
    value = found.get(name)
    return f"{value:,}" if isinstance(value, int) else "?"


def _names(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, Sequence) else ""


_SAID: Final[Mapping[str, Callable[[Summary], Iterator[str]]]] = {
    "bert_embeddings": _embeddings,
    "drift_detection": _drift,
    "model_training": _training,
    "model_deployment": _deployment,
    "health_check": _health,
    "outcomes": _outcomes,
    "maintenance": _maintenance,
    "forget_customers": _forgetting,
}
