"""Do customers come as often, and are they the same kind of customers?"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from recsys.errors import InputError
from recsys.schema import USER

MIN_INTERACTIONS = 50
MIN_CHANGE_PCT = 20.0
HIGH_CHANGE_PCT = 50.0
ALPHA = 0.001


def interaction_stats(
    interactions: pd.DataFrame, days: float, known_users: set[str] | pd.Index | None = None
) -> dict[str, float]:
    """What `detect_interaction_drift` compares, counted from a frame of interactions.

    Needs the column USER. `days` is the length of the period, `known_users` whoever had
    interacted before it: without them the share of new users stays unknown.

    >>> frame = pd.DataFrame({"user_id": ["u1", "u1", "u2"]})
    >>> interaction_stats(frame, days=7, known_users={"u1"})
    {'interactions': 3, 'users': 2, 'days': 7.0, 'new_users': 1}
    """
    if USER not in interactions.columns:
        raise InputError(f"interactions: the column {USER!r} is missing")
    users = interactions[USER].dropna()
    counted: dict[str, float] = {
        "interactions": len(users),
        "users": int(users.nunique()),
        "days": float(days),
    }
    if known_users is not None:
        counted["new_users"] = len(set(users.unique()) - set(known_users))
    return counted


def detect_interaction_drift(
    historical_stats: Mapping[str, float], new_stats: Mapping[str, float]
) -> dict[str, Any]:
    """Compare how much happened, how active users were and how many of them were new.

    Drift needs both: volume a day (or interactions a user) changed by at least 20 %, and chance
    explains that in fewer than 1 in 1,000 cases. Below 50 interactions in either period the
    answer is ``insufficient_data``. The weekly report compares with the season instead, see
    `recsys.drift.volume`.

    Parameters
    ----------
    historical_stats, new_stats
        ``interactions`` and ``users``, counts of the period; ``days``, its length (without it
        in either, the periods count as equally long); ``new_users``, users never seen before
        the period (optional). `interaction_stats` makes them from a frame.

    Returns
    -------
    dict
        ``drift_detected``, ``volume_change_pct`` and ``user_activity_change_pct`` (change of
        interactions a user; both None when the old value is 0 or unknown), ``new_users_pct``
        (share of new users in the new period, in percent; None if not given), and
        ``severity``, ``status``, ``volume_interval_95_pct``, ``p_value`` (volume),
        ``user_activity_p_value``, ``sample_sizes``.

    Raises
    ------
    InputError
        If a count is missing, negative, NaN, or contradicts another one.

    Examples
    --------
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
    result: dict[str, Any] = {
        "drift_detected": False,
        "severity": "low",
        "volume_change_pct": volume,
        "user_activity_change_pct": activity,
        "new_users_pct": 100.0 * new["new_users"] / new["users"]
        if "new_users" in new and new["users"]
        else None,
        "status": "tested",
        "sample_sizes": sizes,
        "test": "exact binomial for the volume, Poisson ratio for the activity",
    }
    # An empty new period is no lack of data when the old one was busy: it is a collapse.
    expected = sizes["historical"] * span_new / span_old
    if sizes["historical"] < MIN_INTERACTIONS or max(expected, sizes["new"]) < MIN_INTERACTIONS:
        unknown = ("volume_interval_95_pct", "p_value", "user_activity_p_value")
        return result | {"status": "insufficient_data"} | dict.fromkeys(unknown)
    total = sizes["historical"] + sizes["new"]
    share = span_new / (span_old + span_new)
    test = stats.binomtest(sizes["new"], total, share)
    interval = test.proportion_ci(0.95)
    p_activity = _activity_p_value(old, new)
    sure = [
        abs(change)
        for change, p_value in ((volume, test.pvalue), (activity, p_activity))
        if change is not None and p_value < ALPHA
    ]
    change = max(sure, default=0.0)
    drifted = change >= MIN_CHANGE_PCT
    severity = "high" if change >= HIGH_CHANGE_PCT else "medium"
    return result | {
        "drift_detected": drifted,
        "severity": severity if drifted else "low",
        "volume_interval_95_pct": [
            _odds_pct(edge, share) for edge in (interval.low, interval.high)
        ],
        "p_value": float(test.pvalue),
        "user_activity_p_value": p_activity,
    }


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
    values = {}
    for key in known:
        if counted.get(key) is None:
            continue
        values[key] = _number(counted[key], f"{name}: {key}")
    if values.get("days", 1.0) <= 0:
        raise InputError(f"{name}: days is {values['days']:g}; expected more than 0")
    if values["users"] > values["interactions"]:
        raise InputError(f"{name}: more users than interactions")
    if (values["users"] == 0) != (values["interactions"] == 0):
        raise InputError(f"{name}: interactions without users")
    if values.get("new_users", 0.0) > values["users"]:
        raise InputError(f"{name}: more new users than users")
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
