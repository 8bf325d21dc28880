"""Do as many customers come as often, are they the same kind, and do they write as before?"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from scipy import stats

from recsys.drift.checks import INSUFFICIENT, NEGLIGIBLE_P, TESTED, Check, Span
from recsys.drift.config import Severity
from recsys.drift.statistics import mean_shift
from recsys.drift.weeks import Events
from recsys.errors import InputError

MIN_INTERACTIONS = 50
MIN_CHANGE_PCT = 20.0
HIGH_CHANGE_PCT = 50.0
ALPHA = 0.001

# Below how many users or comments the weekly report says nothing.
_MIN_USERS = 50
_MIN_COMMENTS = 200

# Letters that only Vietnamese has; a text of some length without any was typed without accents
# or in another language.
_VIETNAMESE = (
    "[ăâđêôơưàảãáạằẳẵắặầẩẫấậèẻẽéẹềểễếệìỉĩíịòỏõóọồổỗốộờởỡớợùủũúụừửữứựỳỷỹýỵ"
    "ĂÂĐÊÔƠƯÀẢÃÁẠẰẲẴẮẶẦẨẪẤẬÈẺẼÉẸỀỂỄẾỆÌỈĨÍỊÒỎÕÓỌỒỔỖỐỘỜỞỠỚỢÙỦŨÚỤỪỬỮỨỰỲỶỸÝỴ]"
)
_TELLING_LENGTH = 15  # characters from which a Vietnamese text nearly always has such a letter


class _Measure(NamedTuple):
    """A number of each review or customer, a column by its name, whose weekly mean is watched; a
    change of `minimum` matters."""

    name: str
    minimum: float
    unit: str
    relative: bool = False


_OF_USERS = (
    _Measure("activity", 0.2, "relative change of events a user", relative=True),
    _Measure("new_users", 0.1, "change of the share of users"),
)
_OF_COMMENTS = (
    _Measure("comment_length", float(np.log1p(0.25)), "change of the mean logarithm of the length"),
    _Measure("comment_missing", 0.1, "change of the share of reviews"),
    _Measure("comment_language", 0.1, "change of the share of comments"),
    _Measure("comment_quality", 0.08, "change of the mean"),  # which is in [0, 1]
)
_ADVICE = {
    "activity": "Customers write {more} reviews each than before ({old:.2f} -> {new:.2f}).",
    "new_users": "There are {more} new customers than before ({old:.0%} -> {new:.0%}): look at "
    "what unknown customers are recommended.",
    "comment_length": "Comments became {longer} (mean log length {old:.2f} -> {new:.2f}).",
    "comment_missing": "There are {more} reviews without a comment ({old:.0%} -> {new:.0%}).",
    "comment_language": "There are {more} comments in accented Vietnamese "
    "({old:.0%} -> {new:.0%}).",
    "comment_quality": "The mean quality of comments changed ({old:.2f} -> {new:.2f}).",
}


def detect_interaction_drift(
    historical_stats: Mapping[str, float], new_stats: Mapping[str, float]
) -> dict[str, Any]:
    """Compare how much happened, how active users were and how many of them were new; the weekly
    report compares with the season instead, see `recsys.drift.volume`.

    Drift needs both: volume a day (or interactions a user) changed by at least 20 %, and chance
    explains that in fewer than 1 in 1,000 cases. Below 50 interactions in either period the answer
    is ``insufficient_data``.

    A period has ``interactions`` and ``users``, counts; optionally ``days``, its length (without
    it in either, they count as equally long), and ``new_users``, never seen before it.

    Returns ``drift_detected``, ``volume_change_pct``, ``user_activity_change_pct`` (interactions a
    user; both None when the old value is 0), ``new_users_pct`` (of the new period's users; None if
    not given), ``severity``, ``status``, ``volume_interval_95_pct``, ``p_value`` (volume),
    ``user_activity_p_value``, ``sample_sizes``. Raises `InputError` if a count is missing,
    negative, NaN, or contradicts another one.

    >>> old = {"interactions": 4000, "users": 3500, "days": 28}
    >>> new = {"interactions": 700, "users": 610, "new_users": 450, "days": 7}
    >>> result = detect_interaction_drift(old, new)
    >>> result["drift_detected"], round(result["volume_change_pct"]), round(result["new_users_pct"])
    (True, -30, 74)
    """
    old, new = _checked(historical_stats, "historical_stats"), _checked(new_stats, "new_stats")
    if ("days" in old) != ("days" in new):
        missing = "historical_stats" if "days" in new else "new_stats"
        raise InputError(f"{missing}: 'days' is missing, but the other period has it")
    span_old, span_new = old.get("days", 1.0), new.get("days", 1.0)
    volume = _change_pct(old["interactions"] / span_old, new["interactions"] / span_new)
    activity = _change_pct(_per_user(old), _per_user(new))
    sizes = {"historical": int(old["interactions"]), "new": int(new["interactions"])}
    known = "new_users" in new and new["users"]
    result: dict[str, Any] = {
        "drift_detected": False,
        "severity": "low",
        "volume_change_pct": volume,
        "user_activity_change_pct": activity,
        "new_users_pct": 100.0 * new["new_users"] / new["users"] if known else None,
        "status": TESTED,
        "sample_sizes": sizes,
        "test": "exact binomial for the volume, Poisson ratio for the activity",
    }
    # An empty new period is no lack of data when the old one was busy: it is a collapse.
    expected = sizes["historical"] * span_new / span_old
    if sizes["historical"] < MIN_INTERACTIONS or max(expected, sizes["new"]) < MIN_INTERACTIONS:
        unknown = ("volume_interval_95_pct", "p_value", "user_activity_p_value")
        return result | {"status": INSUFFICIENT} | dict.fromkeys(unknown)
    total = sizes["historical"] + sizes["new"]
    share = span_new / (span_old + span_new)
    test = stats.binomtest(sizes["new"], total, share)
    p_activity = _activity_p_value(old, new)
    found = ((volume, test.pvalue), (activity, p_activity))
    sure = [abs(change) for change, p_value in found if change is not None and p_value < ALPHA]
    change = max(sure, default=0.0)
    drifted = change >= MIN_CHANGE_PCT
    severity = "high" if change >= HIGH_CHANGE_PCT else "medium"
    return result | {
        "drift_detected": drifted,
        "severity": severity if drifted else "low",
        "volume_interval_95_pct": [_odds_pct(edge, share) for edge in test.proportion_ci(0.95)],
        "p_value": float(test.pvalue),
        "user_activity_p_value": p_activity,
    }


def check_customers(span: Span) -> list[Check]:
    """Events a user, and the share of users who had never been seen before."""
    window, reference = _user_weeks(span.window), _user_weeks(span.reference)
    return [_check(one, window, reference, _MIN_USERS, "medium") for one in _OF_USERS]


def check_comments(span: Span) -> list[Check]:
    """Length, absence, language and quality of comments, campaigns left out."""
    if span.window.comments is None:
        return []
    window, reference = _comment_features(span.window), _comment_features(span.reference)
    given = [measure for measure in _OF_COMMENTS if measure.name in window]
    return [_check(measure, window, reference, _MIN_COMMENTS, "low") for measure in given]


def _check(
    measure: _Measure, new: pd.DataFrame, old: pd.DataFrame, minimum: int, severity: Severity
) -> Check:
    now = new[measure.name].dropna().to_numpy(np.float64)
    then = old[["week", measure.name]].dropna()
    details: dict[str, Any] = {
        "unit": measure.unit,
        "sample_sizes": {"historical": len(then), "new": len(now)},
        "test": "t, with the spread between the reference's weeks",
    }
    usual, weeks = then[measure.name].to_numpy(np.float64), then["week"].to_numpy(np.int64)
    shift = mean_shift(now, usual, weeks) if len(now) >= minimum else None
    if shift is None:
        return Check(measure.name, details=details)
    effect = shift.new - shift.old
    if measure.relative:
        effect = effect / shift.old if shift.old else 0.0
    more, longer = ("more", "longer") if effect > 0 else ("fewer", "shorter")
    means = {"old": shift.old, "new": shift.new}
    details |= {"historical": shift.old, "new": shift.new, "band_95": [shift.low, shift.high]}
    return Check(
        measure.name,
        p_value=max(shift.p_value, NEGLIGIBLE_P),
        effect=effect,
        large=abs(effect) >= measure.minimum,
        direction=int(np.sign(effect)),
        severity=severity,
        advice=_ADVICE[measure.name].format(more=more, longer=longer, **means),
        details=details,
    )


def _user_weeks(events: Events) -> pd.DataFrame:
    """One row for each user and week: number of events, whether it is the user's first week."""
    users = pd.DataFrame({"week": events.weeks, "user": events.users})
    counted = users.groupby(["week", "user"], sort=False).size().rename("activity").reset_index()
    first = events.first_weeks[counted["user"].to_numpy()]
    return counted.assign(new_users=(first == counted["week"]).astype(np.float64))


def _comment_features(events: Events) -> pd.DataFrame:
    """Per event: log length, whether missing, in accented Vietnamese, quality; NaN where there is
    no comment, or one too short to tell."""
    comments = events.comments if events.comments is not None else pd.Series(dtype=object)
    given = pa.array(comments.astype(object).fillna(""), type=pa.large_string(), from_pandas=True)
    texts = pc.utf8_normalize(pc.utf8_trim_whitespace(given), form="NFC")
    length = pc.utf8_length(texts).to_numpy().astype(np.float64)
    accented = pc.match_substring_regex(texts, _VIETNAMESE).to_numpy(zero_copy_only=False)
    features = pd.DataFrame(
        {
            "week": events.weeks,
            "comment_length": np.where(length > 0, np.log(np.maximum(length, 1)), np.nan),
            "comment_missing": (length == 0).astype(np.float64),
            "comment_language": np.where(length >= _TELLING_LENGTH, accented, np.nan),
        }
    )
    if events.quality is not None:
        features["comment_quality"] = np.where(length > 0, events.quality, np.nan)
    return features


def _checked(counted: Mapping[str, float], name: str) -> dict[str, float]:
    if not isinstance(counted, Mapping):
        raise InputError(f"{name}: expected a mapping, got {type(counted).__name__}")
    known = ("interactions", "users", "new_users", "days")
    missing = [key for key in known[:2] if counted.get(key) is None]
    if missing:
        raise InputError(
            f"{name}: {', '.join(missing)} missing; expected interactions and users, and "
            f"optionally new_users and days; got {sorted(map(str, counted))}"
        )
    given = [key for key in known if counted.get(key) is not None]
    values = {key: _number(counted[key], f"{name}: {key}") for key in given}
    interactions, users, days = values["interactions"], values["users"], values.get("days", 1.0)
    for wrong, what in (
        (days <= 0, f"days is {days:g}; expected more than 0"),
        (users > interactions, "more users than interactions"),
        ((users == 0) != (interactions == 0), "interactions without users"),
        (values.get("new_users", 0.0) > users, "more new users than users"),
    ):
        if wrong:
            raise InputError(f"{name}: {what}")
    return values


def _number(value: Any, name: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise InputError(f"{name} is {value!r}; expected a number") from None
    if not np.isfinite(number) or number < 0:
        raise InputError(f"{name} is {number:g}; expected a number of at least 0")
    return number


def _per_user(counted: Mapping[str, float]) -> float:
    return counted["interactions"] / counted["users"] if counted["users"] else 0.0


def _change_pct(old: float, new: float) -> float | None:
    return 100.0 * (new - old) / old if old else None


def _odds_pct(proportion: float, share: float) -> float | None:
    """The change of a rate, in percent, that makes `proportion` of all events new ones."""
    if proportion >= 1:
        return None
    return float(100.0 * (proportion / (1 - proportion) * (1 - share) / share - 1))


def _activity_p_value(old: Mapping[str, float], new: Mapping[str, float]) -> float:
    """Whether users repeat themselves more: interactions beyond each user's first one."""
    more_old, more_new = old["interactions"] - old["users"], new["interactions"] - new["users"]
    total = int(more_old + more_new)
    if total == 0 or not old["users"] or not new["users"]:
        return 1.0
    share = new["users"] / (old["users"] + new["users"])
    return float(stats.binomtest(int(more_new), total, share).pvalue)
