"""Are they still the same customers, and do they write as before?"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from recsys.drift.checks import INSUFFICIENT, NEGLIGIBLE_P, TESTED, Check, Span
from recsys.drift.config import DriftConfig, Severity
from recsys.drift.events import Events
from recsys.drift.statistics import mean_shift

# Letters that only Vietnamese has; a text of some length without any was typed without accents
# or in another language.
_VIETNAMESE = (
    "[ăâđêôơưàảãáạằẳẵắặầẩẫấậèẻẽéẹềểễếệìỉĩíịòỏõóọồổỗốộờởỡớợùủũúụừửữứựỳỷỹýỵ"
    "ĂÂĐÊÔƠƯÀẢÃÁẠẰẲẴẮẶẦẨẪẤẬÈẺẼÉẸỀỂỄẾỆÌỈĨÍỊÒỎÕÓỌỒỔỖỐỘỜỞỠỚỢÙỦŨÚỤỪỬỮỨỰỲỶỸÝỴ]"
)
_TELLING_LENGTH = 15  # characters from which a Vietnamese text nearly always has such a letter


@dataclass(frozen=True)
class _Measure:
    """One number of a review or customer whose weekly mean is watched."""

    name: str
    column: str
    minimum: float
    unit: str
    advice: str
    relative: bool = False


def check_customers(span: Span, config: DriftConfig) -> list[Check]:
    """Events a user, and the share of users who had never been seen before."""
    rule = config.customers
    measures = [
        (
            _Measure(
                "activity",
                "events",
                rule.min_activity_change,
                "relative change of events a user",
                "Customers write {more} reviews each than before ({old:.2f} -> {new:.2f}).",
                relative=True,
            ),
            config.severity.activity,
        ),
        (
            _Measure(
                "new_users",
                "new",
                rule.min_new_users_change,
                "change of the share of users",
                "There are {more} new customers than before ({old:.0%} -> {new:.0%}): look at "
                "what unknown customers are recommended.",
            ),
            config.severity.new_users,
        ),
    ]
    window, reference = _user_weeks(span.window), _user_weeks(span.reference)
    return [
        _check(measure, window, reference, rule.min_users, severity)
        for measure, severity in measures
    ]


def check_comments(span: Span, config: DriftConfig) -> list[Check]:
    """Length, absence, language and quality of comments, campaigns left out."""
    rule = config.comments
    if span.window.comments is None:
        return []
    measures = [
        _Measure(
            "comment_length",
            "length",
            float(np.log1p(rule.min_length_change)),
            "change of the mean logarithm of the length",
            "Comments became {longer} (mean log length {old:.2f} -> {new:.2f}).",
        ),
        _Measure(
            "comment_missing",
            "missing",
            rule.min_share_change,
            "change of the share of reviews",
            "There are {more} reviews without a comment ({old:.0%} -> {new:.0%}).",
        ),
        _Measure(
            "comment_language",
            "vietnamese",
            rule.min_share_change,
            "change of the share of comments",
            "There are {more} comments in accented Vietnamese ({old:.0%} -> {new:.0%}).",
        ),
        _Measure(
            "comment_quality",
            "quality",
            rule.min_quality_change,
            "change of the mean",
            "The mean quality of comments changed ({old:.2f} -> {new:.2f}).",
        ),
    ]
    window, reference = _comment_features(span.window), _comment_features(span.reference)
    return [
        _check(measure, window, reference, rule.min_comments, config.severity.comments)
        for measure in measures
        if measure.column in window
    ]


def _check(
    measure: _Measure,
    window: pd.DataFrame,
    reference: pd.DataFrame,
    minimum: int,
    severity: Severity,
) -> Check:
    now = window[measure.column].dropna().to_numpy(np.float64)
    then = reference[["week", measure.column]].dropna()
    details = {
        "unit": measure.unit,
        "sample_sizes": {"historical": len(then), "new": len(now)},
        "test": "t, with the spread between the reference's weeks",
    }
    shift = None
    if len(now) >= minimum:
        shift = mean_shift(
            now, then[measure.column].to_numpy(np.float64), then["week"].to_numpy(np.int64)
        )
    if shift is None:
        return Check(measure.name, INSUFFICIENT, details=details)
    effect = shift.difference
    if measure.relative:
        effect = shift.difference / shift.old if shift.old else 0.0
    rising = effect > 0
    return Check(
        measure.name,
        TESTED,
        p_value=max(shift.p_value, NEGLIGIBLE_P),
        effect=effect,
        large=abs(effect) >= measure.minimum,
        direction=int(np.sign(effect)),
        severity=severity,
        advice=measure.advice.format(
            more="more" if rising else "fewer",
            longer="longer" if rising else "shorter",
            old=shift.old,
            new=shift.new,
        ),
        details=details
        | {"historical": shift.old, "new": shift.new, "band_95": [shift.low, shift.high]},
    )


def _user_weeks(events: Events) -> pd.DataFrame:
    """One row for each user and week: number of events, whether it is the user's first week."""
    users = pd.DataFrame({"week": events.weeks, "user": events.users})
    counted = users.groupby(["week", "user"], sort=False).size().rename("events").reset_index()
    first = events.first_weeks[counted["user"].to_numpy()]
    return counted.assign(new=(first == counted["week"]).astype(np.float64))


def _comment_features(events: Events) -> pd.DataFrame:
    """Per event: log length, whether missing, in accented Vietnamese, quality.

    Length and language are NaN where there is no comment (or one too short to tell).
    """
    comments = events.comments if events.comments is not None else pd.Series(dtype=object)
    given = pa.array(comments.astype(object).fillna(""), type=pa.large_string(), from_pandas=True)
    texts = pc.utf8_normalize(pc.utf8_trim_whitespace(given), form="NFC")
    length = pc.utf8_length(texts).to_numpy().astype(np.float64)
    accented = pc.match_substring_regex(texts, _VIETNAMESE).to_numpy(zero_copy_only=False)
    features = pd.DataFrame(
        {
            "week": events.weeks,
            "length": np.where(length > 0, np.log(np.maximum(length, 1)), np.nan),
            "missing": (length == 0).astype(np.float64),
            "vietnamese": np.where(length >= _TELLING_LENGTH, accented, np.nan),
        }
    )
    if events.quality is not None:
        features["quality"] = np.where(length > 0, events.quality, np.nan)
    return features
