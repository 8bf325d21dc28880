"""Do customers still do the same kinds of things, as far as the shop is told?

A front end that no longer sends purchases, or a new one that sends views as clicks, changes what
models learn without any customer having changed."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
from scipy import stats

from recsys import schema
from recsys.arrays import Int64Array
from recsys.drift.checks import INSUFFICIENT, TESTED, Check, Span
from recsys.drift.statistics import MIN_WEEKS, dispersion_of, g_test, shares
from recsys.drift.weeks import Week

KINDS = tuple(kind.value for kind in schema.Kind if kind is not schema.Kind.RATING)
THRESHOLD = 0.1
MIN_COUNT = 300
ALPHA = 0.001


@dataclass(frozen=True)
class WeeklyKinds:
    """Of each week from number `first` on ``(weeks, kinds)``: how many customers did things of each
    of the `KINDS`. A customer counts once a week and kind, however often a robot clicks."""

    first: int
    counts: Int64Array

    def between(self, first: int, stop: int) -> Int64Array:
        """The counts of the weeks numbered ``first <= week < stop``, as far as there are any."""
        low, high = np.clip([first - self.first, stop - self.first], 0, len(self.counts))
        return self.counts[low:high]


def weekly_kinds(signals: pd.DataFrame, zone: ZoneInfo, complete_from: datetime) -> WeeklyKinds:
    """From USER, KIND and TIMESTAMP; weeks that began before `complete_from` are left out: views of
    them may be gone from the version."""
    first = Week.last_full(complete_from, zone).number + 2
    start = np.datetime64(Week(first, zone).first_day)
    local = signals[schema.TIMESTAMP].dt.tz_convert(zone).dt.tz_localize(None)
    days = (local.to_numpy().astype("datetime64[D]") - start).astype(np.int64)
    done = pd.DataFrame(
        {
            "week": days // 7,
            "kind": pd.Index(KINDS).get_indexer(pd.Index(signals[schema.KIND])),
            "user": pd.factorize(signals[schema.USER])[0],
        }
    )
    once = done[(days >= 0) & (done["kind"] >= 0)].drop_duplicates()
    weeks = int(once["week"].max()) + 1 if len(once) else 0
    place = once["week"].to_numpy() * len(KINDS) + once["kind"].to_numpy()
    counts = np.bincount(place, minlength=weeks * len(KINDS)).reshape(-1, len(KINDS))
    return WeeklyKinds(first, counts.astype(np.int64))


def check_kinds(kinds: WeeklyKinds | None, span: Span) -> Sequence[Check]:
    """The shares of the kinds in the window against the reference. No check where nothing but
    ratings is known of the window and its reference."""
    if kinds is None:
        return []
    reference = kinds.between(*span.reference_bounds)
    window = kinds.between(span.week.number, span.week.number + 1)
    old, new = reference.sum(axis=0), window.sum(axis=0)
    if not old.sum() + new.sum():
        return []
    weeks = int(reference.any(axis=1).sum())
    enough = weeks >= MIN_WEEKS and min(old.sum(), new.sum()) >= MIN_COUNT
    old_shares, new_shares = shares(old), shares(new)
    difference = new_shares - old_shares
    worst = int(np.argmax(np.abs(difference)))
    details = {
        "status": TESTED if enough else INSUFFICIENT,
        "unit": "change of a kind's share",
        "kinds": {
            kind: {"historical": then, "new": now}
            for kind, then, now in zip(KINDS, old_shares.tolist(), new_shares.tolist(), strict=True)
        },
        "sample_sizes": {"historical": int(old.sum()), "new": int(new.sum()), "weeks": weeks},
        "threshold": THRESHOLD,
        "min_count": MIN_COUNT,
        "test": "G-test, deflated by the dispersion; bound of the largest change by chance",
    }
    if not enough:
        return [Check("kinds", details=details)]
    varied = dispersion_of(reference)
    _, p_value = g_test(old, new, varied)
    pooled = shares(old + new)
    error = np.sqrt(varied * pooled * (1 - pooled) * (1 / old.sum() + 1 / new.sum()))
    bound = float(stats.norm.isf(ALPHA / (2 * len(KINDS))) * error.max())
    change = float(abs(difference[worst]))
    moved = f"{100 * difference[worst]:+.1f} points"
    return [
        Check(
            "kinds",
            p_value=p_value,
            effect=change,
            large=change >= THRESHOLD and change > bound,
            direction=int(np.sign(difference[worst])) * (worst + 1),
            severity="medium",
            advice=f"The share of {KINDS[worst]}s among what customers did moved by {moved}: look "
            "whether the front end and the exports still send every kind of event.",
            details=details | {"kind": KINDS[worst], "null_bound": bound, "dispersion": varied},
        )
    ]
