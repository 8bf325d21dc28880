"""What the figures of a version mean: for each check sound, doubtful, or not judged for want of
data or of a version before it. What is worse than doubtful fails the run and has no report."""

import itertools
from collections.abc import Callable, Mapping
from typing import Any, Final

SOUND: Final = "sound"
DOUBTFUL: Final = "doubtful"
NOT_JUDGED: Final = "not_judged"

NEAR: Final = 0.5
"""Share of a limit from which it is near."""
MOVED: Final = 0.1
"""By how much a share has to move to be doubted: with all reviews of all years in it, a version
does not move by so much in a night unless the export has changed."""
MANY_CAMPAIGNS: Final = 0.1

_PAUSES: Final = 2.0  # times the longest pause of before that nothing new came
_SHORTEST_PAUSE: Final = 2.0  # days in which nothing new is no news in any shop

Figures = Mapping[str, Any]


def judge(figures: Figures) -> dict[str, str]:
    """The state of each check by its name, of figures as `recsys.quality.measures` makes them, with
    their ``limits`` and ``refused``."""
    if not figures["counts"]["accepted"]:
        return dict.fromkeys(_CHECKS, NOT_JUDGED)
    return {name: check(figures) for name, check in _CHECKS.items()}


def overall(states: Mapping[str, str]) -> str:
    """Doubtful if any check is; not judged if none could be."""
    found = set(states.values())
    return next((one for one in (DOUBTFUL, SOUND) if one in found), NOT_JUDGED)


def _of(doubtful: bool) -> str:
    return DOUBTFUL if doubtful else SOUND


def _limit(rule: str) -> Callable[[Figures], str]:
    def check(figures: Figures) -> str:
        found = next((one for one in figures["limits"] if one["rule"] == rule), None)
        return NOT_JUDGED if found is None else _of(found["share"] > NEAR * found["limit"])

    return check


def _dates(figures: Figures) -> str:
    dates = figures["dates"]
    age, pause = dates["age_days"], dates["longest_pause_days"]
    if age is None or pause is None:
        return NOT_JUDGED
    return _of(age > max(_SHORTEST_PAUSE, _PAUSES * pause))


def _prices(figures: Figures) -> str:
    prices = figures["prices"]
    return NOT_JUDGED if prices is None else _of(bool(prices["odd"] or prices["jumped"]))


def _moved(name: str) -> Callable[[Figures], str]:
    def check(figures: Figures) -> str:
        before = figures["distributions_before"]
        if before is None:
            return NOT_JUDGED
        now, then = (_shares(one[name]) for one in (figures["distributions"], before))
        return _of(max(abs(a - b) for a, b in zip(now, then, strict=True)) >= MOVED)

    return check


def _shares(counts: Any) -> list[float]:
    values = list(counts.values()) if isinstance(counts, Mapping) else list(counts)
    return [value / max(sum(values), 1) for value in values]


def _campaigns(figures: Figures) -> str:
    share = figures["spam_share"]
    return NOT_JUDGED if share is None else _of(share >= MANY_CAMPAIGNS)


def _encoding(figures: Figures) -> str:
    return _of(any(figures["mojibake"].values()))


def _missing(figures: Figures) -> str:
    before = figures["missing_before"]
    if before is None:
        return NOT_JUDGED
    tables = (figures["missing"][table].items() for table in before)
    now = itertools.chain.from_iterable(tables)
    then = {column: share for shares in before.values() for column, share in shares.items()}
    return _of(any(share - then.get(column, share) >= MOVED for column, share in now))


_CHECKS: Final[Mapping[str, Callable[[Figures], str]]] = {
    "rows": _limit("rows lost since before"),
    "refused": _limit("rows refused"),
    "dates": _dates,
    "prices": _prices,
    "stars": _moved("rating"),
    "lengths": _moved("comment_length"),
    "qualities": _moved("comment_quality"),
    "campaigns": _campaigns,
    "encoding": _encoding,
    "missing": _missing,
}
