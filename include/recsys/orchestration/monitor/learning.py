"""How a model was learnt: the trials of its search, and what its iterations measured."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from recsys.errors import InputError
from recsys.orchestration.monitor.charts import MOST_LINES, Chart, Line, Values
from recsys.registry import Entry, Registry

SHOWN: Final = 25
"""Trials that are shown at once; the others are folded away."""
SCORE: Final = "score"
NUMBER: Final = "number"


class TrialRow(NamedTuple):
    """A trial of the search: which one it was, its score (None where the training broke down), and
    whether the model was made with it."""

    number: int
    score: float | None
    parameters: Mapping[str, Any]
    best: bool


class Learning(NamedTuple):
    """The curves, of more than one value each; the trials in the order asked for; the parameters in
    which they differ, which are the columns of their table."""

    curves: list[Chart]
    trials: list[TrialRow]
    columns: list[str]


def gather_learning(registry: Registry, entry: Entry, sort: str, down: bool) -> Learning:
    """Trials by `sort`: `NUMBER`, `SCORE` or a parameter; what has no value comes last. Nothing of
    an artefact that lies elsewhere or was written by earlier code."""
    try:
        path = registry.place(entry) / "evaluation.json"
        curves = json.loads(path.read_text(encoding="utf-8"))["curves"]
        taken = (entry.training_info.get("tuning") or {}).get("score")
        rows = _rows(curves.get("trials") or [], taken)
        charts = _iterations(curves["iterations"], entry) + _passes(curves.get("trials") or [])
        scores = [row.score for row in rows]
        search = _search(scores) if rows else _best_so_far(curves["search"])
    except (InputError, OSError, ValueError, KeyError, TypeError, AttributeError):
        return Learning([], [], [])
    names = dict.fromkeys(name for row in rows for name in row.parameters)
    columns = [name for name in names if len({_key(row, name) for row in rows}) > 1]
    rows.sort(key=lambda row: _key(row, sort), reverse=down)
    rows.sort(key=lambda row: _value(row, sort) is None)
    return Learning([*charts, *search], rows, columns)


def _rows(trials: Sequence[Mapping[str, Any]], taken: float | None) -> list[TrialRow]:
    """`taken` is the score of what the model was made with: of blends that are as good it is the
    more personal one, and of families that are scored once more none of these."""
    scores = [one["score"] for one in trials]
    best = max((score for score in scores if score is not None), default=None)
    best = taken if taken is not None and taken in scores else best
    first = scores.index(best) if best is not None else -1
    return [
        TrialRow(n + 1, one["score"], one["parameters"], n == first) for n, one in enumerate(trials)
    ]


def _value(row: TrialRow, name: str) -> Any:
    if name == NUMBER:
        return row.number
    return row.score if name == SCORE else row.parameters.get(name)


def _key(row: TrialRow, name: str) -> tuple[int, float, str]:
    """By what a row is sorted: numbers by their size, all else as text."""
    value = _value(row, name)
    if isinstance(value, int | float):
        return 0, float(value), ""
    return 1, 0.0, json.dumps(value, sort_keys=True)


def _iterations(measured: Mapping[str, Sequence[float]], entry: Entry) -> list[Chart]:
    """What the iterations of the fit measured, of a blend those of each member. A factor model that
    begins several times has as many curves, one after the other in the record."""
    charts = []
    for name, values in measured.items():
        member, _, measure = name.rpartition(".")
        starts = _starts(entry, member or entry.model_type)
        each = len(values) // starts if not len(values) % starts else len(values)
        parts = [values[n : n + each] for n in range(0, len(values), max(each, 1))]
        if each > 1:
            known = f"{measure}_of_starts" if len(parts) > 1 else measure
            charts.append(_chart(known, parts, measure)._replace(of=member))
    return charts


def _starts(entry: Entry, member: str) -> int:
    """How often the model, or the member of a blend, begins."""
    own = entry.hyperparameters
    asked = own if member == entry.model_type else own.get(member)
    return max(1, int(asked.get("starts", 1))) if isinstance(asked, Mapping) else 1


def _passes(trials: Sequence[Mapping[str, Any]]) -> list[Chart]:
    """The score on validation after each pass, of every trial that learns in passes."""
    curves = [one["passes"] for one in trials if len(one.get("passes") or ()) > 1]
    return [_chart("passes", curves[:MOST_LINES], "each_trial")] if curves else []


def _search(scores: Sequence[float | None]) -> list[Chart]:
    """The score of each trial, and the best so far."""
    known = np.array([-np.inf if score is None else score for score in scores])
    best = [None if np.isinf(one) else float(one) for one in np.maximum.accumulate(known)]
    if len(scores) < 2:
        return []
    lines = [Line("best_so_far", best), Line("each_trial", list(scores))]
    return [Chart("search", SCORE, _steps(len(scores)), lines, dots=True, steps=True)]


def _best_so_far(history: Sequence[float]) -> list[Chart]:
    return [_chart("search", [history], "best_so_far")] if len(history) > 1 else []


def _chart(name: str, curves: Sequence[Values], line: str) -> Chart:
    """Curves of one kind; several of them have numbers for names."""
    most = max(map(len, curves))
    names = _steps(len(curves)) if len(curves) > 1 else [line]
    lines = [
        Line(each, [*curve, *[None] * (most - len(curve))])
        for each, curve in zip(names, curves, strict=True)
    ]
    return Chart(name, SCORE, _steps(most), lines, steps=True)


def _steps(count: int) -> list[str]:
    return [str(n + 1) for n in range(count)]
