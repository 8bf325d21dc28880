"""What the figures of an experiment mean, in a word and in sentences for the shop's staff."""

from typing import Literal, NamedTuple

import numpy as np

from recsys.experiments.definitions import COLUMNS, Definition, Experiment
from recsys.experiments.planning import WHOLE_WEEK_DAYS
from recsys.experiments.statistics import MIN_ACTIVE_UNITS, Difference

Word = Literal["running", "winner", "no difference", "stopped"]

METRIC_NAMES = {
    "clicks_per_list": ("lượt nhấp trên mỗi danh sách", "clicks per list"),
    "carts_per_list": ("lượt thêm vào giỏ trên mỗi danh sách", "carts per list"),
    "purchases_per_list": ("lượt mua trên mỗi danh sách", "purchases per list"),
    "purchases_per_user": ("lượt mua trên mỗi khách", "purchases per customer"),
    "value_per_user": ("doanh thu trên mỗi khách (đồng)", "value per customer (dong)"),
    "value_per_1000_lists": (
        "doanh thu trên 1.000 danh sách (đồng)",
        "value per 1,000 lists (dong)",
    ),
}
assert METRIC_NAMES.keys() == COLUMNS.keys()


class Comparison(NamedTuple):
    """One side against the control, after each day."""

    variant: str
    found: Difference


class Verdict(NamedTuple):
    """``running``, ``winner`` (the variant `winner`), ``no difference`` or ``stopped``."""

    word: Word
    winner: str | None
    vietnamese: str
    english: str


def stopped(vietnamese: str, english: str) -> Verdict:
    """Everybody gets what is deployed; the sentences say why."""
    return Verdict("stopped", None, vietnamese, english)


def ended(experiment: Experiment) -> Verdict:
    """Of an experiment that a person ended."""
    by, because = experiment.ended_by, experiment.ended_because
    return stopped(f"do {by} dừng: {because}", f"ended by {by}: {because}")


def decide(definition: Definition, compared: list[Comparison], days: float) -> Verdict:
    """The verdict after so many `days`. A side has won if its interval has left 0 at the end of a
    day, since the first week: the interval holds at all of them together. The control has won if
    all others have lost."""
    if days < WHOLE_WEEK_DAYS:
        return _running(
            f"mới chạy {_comma(f'{days:.1f}')} ngày; cần "
            "trọn một tuần để có đủ ngày thường và cuối tuần",
            f"it has run for {days:.1f} days; a whole week is needed, with its Sunday",
        )
    ahead = {one.variant: one for one in compared if _last_sign(one.found) > 0}
    behind = [one for one in compared if _last_sign(one.found) < 0]
    if ahead:
        best = max(ahead.values(), key=lambda one: float(one.found.value[-1]))
        return _winner(definition, best)
    if compared and len(behind) == len(compared):
        best = max(behind, key=lambda one: float(one.found.value[-1]))
        return _winner(definition, best, control=True)
    if compared and all(_within(one.found, definition.smallest_effect) for one in compared):
        share = f"{definition.smallest_effect:.0%}"
        return Verdict(
            "no difference",
            None,
            f"nếu có khác biệt thì cũng nhỏ hơn {share}, mức nhỏ nhất đáng quan tâm: hãy dừng và "
            "giữ bên đơn giản hơn",
            f"a difference, if there is one, is below {share}, the smallest that matters: stop, "
            "and keep the simpler side",
        )
    if days >= definition.longest_days:
        return Verdict(
            "no difference",
            None,
            f"đã hết {definition.longest_days} ngày mà chưa chứng minh được khác biệt; điều đó "
            "không có nghĩa là hai bên như nhau",
            f"the {definition.longest_days} days are over and no difference could be proven; that "
            "is no proof that the sides are equal",
        )
    if not compared or not np.isfinite(compared[0].found.low[-1]):
        return _running(
            f"chưa đủ khách để nói: mỗi bên cần ít nhất {MIN_ACTIVE_UNITS} khách đã có hành động "
            "được đếm",
            f"too few customers yet: each side needs {MIN_ACTIVE_UNITS} who did what is counted",
        )
    return _running(
        "khoảng tin cậy còn chứa 0; hãy để chạy tiếp, xem bao nhiêu lần cũng được",
        "the interval still holds 0; let it run, and look as often as you like",
    )


def _running(vietnamese: str, english: str) -> Verdict:
    return Verdict("running", None, vietnamese, english)


def _winner(definition: Definition, best: Comparison, *, control: bool = False) -> Verdict:
    control_name = definition.control.name
    name = control_name if control else best.variant
    value, low, high = (
        float(one[-1] / best.found.control_rate[-1])
        for one in (best.found.value, best.found.low, best.found.high)
    )
    vi, en = METRIC_NAMES[str(definition.primary_metric)]
    figures = f"{value:+.1%} ({low:+.1%} … {high:+.1%})"
    return Verdict(
        "winner",
        name,
        f"nhánh {name} tốt hơn về {vi}: {best.variant} so với {control_name} là {_comma(figures)}",
        f"the side {name} is better in {en}: {best.variant} against {control_name} is {figures}",
    )


def _comma(number: str) -> str:
    """As Vietnamese writes it."""
    return number.replace(".", ",")


def _last_sign(found: Difference) -> int:
    """1 or -1 by the last day (of those after a week) at which the interval left 0 out, else 0."""
    signs = np.sign((found.low > 0).astype(int) - (found.high < 0).astype(int))
    signs[: WHOLE_WEEK_DAYS - 1] = 0
    said = np.flatnonzero(signs)
    return int(signs[said[-1]]) if len(said) else 0


def _within(found: Difference, effect: float) -> bool:
    limit = effect * float(found.control_rate[-1])
    return bool(found.low[-1] > -limit and found.high[-1] < limit)
