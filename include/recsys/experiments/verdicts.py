"""What the figures of an experiment mean: in a word, and in a sentence for the shop's staff."""

from collections.abc import Callable, Mapping
from datetime import UTC
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import numpy as np

from recsys.arrays import Float64Array
from recsys.experiments.definitions import Definition, Experiment
from recsys.experiments.planning import WHOLE_WEEK_DAYS
from recsys.experiments.statistics import MIN_ACTIVE_UNITS, Difference
from recsys.language import Language, read_texts

Word = Literal["running", "winner", "no difference", "stopped"]

_TEXTS: Final = Path(__file__).parent / "texts"
_FORMS: Final[Mapping[str, Callable[[Language, Any], str]]] = {
    "run_days": lambda language, days: language.number(days, 1),
    "days": Language.number,
    "least": Language.number,
    "units": lambda language, counts: " / ".join(language.number(one) for one in counts),
    "metric": lambda language, name: language.say(f"metric.{name}"),
    "effect": lambda language, share: written_effect(language, share),
    "share": lambda language, share: language.percent(share, 1),
    "other_share": lambda language, share: language.percent(share, 1),
    "ms": lambda language, ms: language.number(ms, 1),
    "other_ms": lambda language, ms: language.number(ms, 1),
    "value": Language.change,
    "low": Language.change,
    "high": Language.change,
}
"""How the facts of a sentence are written; others are names."""


class Comparison(NamedTuple):
    """One side against the control, after each day."""

    variant: str
    found: Difference


class Verdict(NamedTuple):
    """``running``, ``winner`` (the variant `winner`), ``no difference`` or ``stopped``, and `why`:
    the name of a sentence, whose blanks the `facts` fill in."""

    word: Word
    why: str
    facts: Mapping[str, Any]
    winner: str | None = None

    def said(self, code: str) -> str:
        """The sentence in a language, without its capital and its full stop."""
        language = Language(code, UTC, read_texts(_TEXTS, code))
        facts = {
            name: _FORMS[name](language, fact) if name in _FORMS else fact
            for name, fact in self.facts.items()
        }
        return language.say(f"why.{self.why}", **facts)

    @property
    def english(self) -> str:
        """What logs, alerts and the state of the experiment say."""
        return self.said("en")


def written_effect(language: Language, share: float) -> str:
    """The smallest effect that matters, with the digits that it was given with."""
    return f"{language.amount(round(100 * share, 6))}%"


def stopped(why: str, **facts: Any) -> Verdict:
    """Everybody gets what is deployed; the sentence says why."""
    return Verdict("stopped", why, facts)


def ended(experiment: Experiment) -> Verdict:
    """Of an experiment that a person ended."""
    return stopped("ended", by=experiment.ended_by, because=experiment.ended_because)


def decide(definition: Definition, compared: list[Comparison], days: float) -> Verdict:
    """The verdict after so many `days`. A side has won if its interval has left 0 at the end of a
    day, since the first week: the interval holds at all of them together. The control has won if
    all others have lost."""
    if days < WHOLE_WEEK_DAYS:
        return _running("week", run_days=days)
    signs = {one.variant: last_sign(one.found.low, one.found.high) for one in compared}
    ahead = [one for one in compared if signs[one.variant] > 0]
    if ahead:
        return _winner(definition, _best(ahead))
    if compared and set(signs.values()) == {-1}:
        return _winner(definition, _best(compared), control=True)
    if compared and all(_within(one.found, definition.smallest_effect) for one in compared):
        return Verdict("no difference", "small", {"effect": definition.smallest_effect})
    if days >= definition.longest_days:
        return Verdict("no difference", "over", {"days": definition.longest_days})
    if not compared or not np.isfinite(compared[0].found.low[-1]):
        return _running("few", least=MIN_ACTIVE_UNITS)
    return _running("open")


def _running(why: str, **facts: Any) -> Verdict:
    return Verdict("running", why, facts)


def _best(compared: list[Comparison]) -> Comparison:
    return max(compared, key=lambda one: float(one.found.value[-1]))


def _winner(definition: Definition, best: Comparison, *, control: bool = False) -> Verdict:
    control_name = definition.control.name
    winner = control_name if control else best.variant
    facts = {"winner": winner, "side": best.variant, "control": control_name}
    found = best.found
    relative = {
        name: float(one[-1] / found.control_rate[-1])
        for name, one in (("value", found.value), ("low", found.low), ("high", found.high))
    }
    return Verdict(
        "winner", "won", {**facts, "metric": definition.primary_metric, **relative}, winner
    )


def last_sign(low: Float64Array, high: Float64Array) -> int:
    """1 or -1 by the last day (of those after a week) at which the interval left 0 out, else 0."""
    signs = np.sign((low > 0).astype(int) - (high < 0).astype(int))
    signs[: WHOLE_WEEK_DAYS - 1] = 0
    said = np.flatnonzero(signs)
    return int(signs[said[-1]]) if len(said) else 0


def _within(found: Difference, effect: float) -> bool:
    limit = effect * float(found.control_rate[-1])
    return bool(found.low[-1] > -limit and found.high[-1] < limit)
