"""The shop's experiments: what each asks, how it stands, and the pictures of it."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from recsys.experiments.definitions import COLUMNS, Experiment
from recsys.experiments.state import Experiments, read_report
from recsys.orchestration.monitor.charts import Chart, Line
from recsys.settings import Settings

METRICS: Final = tuple(COLUMNS)
PARTS: Final = ("value", "low", "high")


class Trial(NamedTuple):
    """An experiment, and what the outcomes job said last of it: empty in its first hour, and of a
    canary, which is only guarded."""

    experiment: Experiment
    report: Mapping[str, Any]

    @property
    def state(self) -> str:
        """``ended``, ``guarded``, ``waiting`` (for its first figures), or the verdict."""
        if not self.experiment.running:
            return "ended"
        if self.experiment.definition.primary_metric is None:
            return "guarded"
        return str(self.report.get("verdict", "waiting"))

    @property
    def sides(self) -> Sequence[Mapping[str, Any]]:
        """The sides as the report has them, else as they were defined."""
        if self.report:
            return list(self.report["sides"])
        return [
            {"variant": one.name, "share": one.share, "model": one.model_id or one.model_type}
            for one in self.experiment.definition.variants
        ]

    @property
    def last(self) -> Mapping[str, Mapping[str, float | None]]:
        """The last difference from the control by side: ``value``, ``low``, ``high``."""
        courses = self.report.get("running") or {}
        return {variant: rows[-1] for variant, rows in courses.items() if rows}


def gather_trials(settings: Settings) -> list[Trial]:
    """All of them, those that run first, then the newest. Raises `InputError` if the list of
    experiments is damaged."""
    found = [_trial(settings, one) for one in Experiments(settings).all()[::-1]]
    return sorted(found, key=lambda one: not one.experiment.running)


def gather_trial(settings: Settings, name: str) -> Trial:
    """Raises `InputError` if there is no experiment of this name."""
    return _trial(settings, Experiments(settings).get(name))


def lifts(trial: Trial) -> list[Chart]:
    """The difference of each side from the control with its interval, day by day, of each metric;
    that which decides first."""
    if not trial.report.get("running"):
        return []
    metric, effect = trial.report["metric"], trial.report["smallest_effect"]
    deciding = _lift(metric, trial.report["running"], (-effect, effect))
    others = (trial.report.get("others") or {}).items()
    return [deciding, *(_lift(name, courses, None) for name, courses in others if courses)]


def split(trial: Trial) -> Chart | None:
    """Which share of the customers of an experiment each side has had, day by day."""
    rows = trial.report.get("split") or []
    counted = [row for row in rows if sum(row["units"])]
    if not counted:
        return None
    lines = [
        Line(side["variant"], [row["units"][n] / sum(row["units"]) for row in counted])
        for n, side in enumerate(trial.sides)
    ]
    return Chart("split", "share", [row["day"] for row in counted], lines)


def intended(trial: Trial) -> list[float]:
    """The share that each side should have of those who take part."""
    shares = [float(side["share"]) for side in trial.sides]
    return [share / sum(shares) for share in shares]


def _trial(settings: Settings, experiment: Experiment) -> Trial:
    report = read_report(settings, experiment.name)
    # A canary's name is used again, and a file may be of earlier code.
    ours = experiment.definition.primary_metric is not None and "sides" in report
    return Trial(experiment, report if ours else {})


def _lift(
    metric: str,
    courses: Mapping[str, Sequence[Mapping[str, Any]]],
    zone: tuple[float, float] | None,
) -> Chart:
    days = [str(row["day"]) for row in next(iter(courses.values()))]
    lines = [
        Line(variant, *([row[part] for row in rows] for part in PARTS))
        for variant, rows in courses.items()
    ]
    return Chart(f"lift_{metric}", "change", days, lines, zone=zone)
