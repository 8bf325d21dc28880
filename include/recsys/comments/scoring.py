"""The formula: from the features of a text and the rows it stands in to ``comment_quality``."""

from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import pandas as pd
import pyarrow.compute as pc
from pydantic import Field

from recsys.arrays import BoolArray, Float32Array, Float64Array, Int32Array, Int64Array, UInt64Array
from recsys.comments.features import TextFeatures, describe, plain_words
from recsys.comments.near_copies import Similar, are_similar, group_near_duplicates
from recsys.config import ConfigModel
from recsys.data.keys import one_chunk
from recsys.schema import COMMENT, COMMENT_QUALITY, RATING, TIMESTAMP, USER


class CampaignConfig(ConfigModel):
    """When the same text from many users counts as a campaign."""

    min_users: int = Field(default=5, ge=2)
    min_words: int = Field(default=4, ge=1)


class PretrainedConfig(ConfigModel):
    """A ``transformers`` text-classification model."""

    model: str = Field(default="", description="folder, or name on the model hub")
    label_values: dict[str, float] = Field(default_factory=dict)


class CommentConfig(ConfigModel):
    """``config/comments.yaml``: what shapes ``comment_quality``."""

    FILE = "comments.yaml"

    scorer: Literal["learned", "pretrained", "none"] = "learned"
    sentiment_weight: float = Field(default=0.5, ge=0, le=1)
    campaign: CampaignConfig = CampaignConfig()
    pretrained: PretrainedConfig = PretrainedConfig()


MISMATCH_TOLERANCE = 0.5
"""Stars and sentiment, both on a scale of 0 to 1, may differ by this much before the comment loses
credit for contradicting its stars."""
FULL_LENGTH_WORDS = 30
"""A comment of this many words, or more, gets the full length score."""
SPAN_DAYS = 28
"""Length of the spans that are searched for campaigns. They overlap by half, so every burst of up
to half this length falls into one span as a whole."""

_DAY = pd.Timedelta(days=1)
_EPOCH = pd.Timestamp(0, tz="UTC")


def campaign_users(
    group: Int64Array, user: pd.Series, timestamp: pd.Series, config: CampaignConfig
) -> Int32Array:
    """For each row, how many distinct users wrote its text in the span of time around it.

    `group` numbers the rows' texts; those that count as the same share it, and those that can be
    no campaign have -1. It is the larger of the row's two overlapping spans; 0 for fewer than
    ``config.min_users`` users. Spans are counted from 1970, so the answer for a row depends on
    which rows there are and never on their order."""
    users = np.zeros(len(group), dtype=np.int32)
    copies = np.bincount(group[group >= 0], minlength=1)
    repeated = np.flatnonzero((group >= 0) & (copies[group] >= config.min_users))
    if len(repeated) == 0:
        return users
    author, _ = pd.factorize(user.iloc[repeated])
    half_spans = (timestamp.iloc[repeated] - _EPOCH) // (_DAY * SPAN_DAYS / 2)
    halves = half_spans.to_numpy(dtype=np.int64)
    for shift in (0, 1):
        spans: Int64Array = np.floor_divide(halves + shift, 2, dtype=np.int64)
        rows = pd.DataFrame({"group": group[repeated], "span": spans, "user": author})
        counted = rows.groupby(["group", "span"], sort=False)["user"].transform("nunique")
        users[repeated] = np.maximum(users[repeated], counted)
    users[users < config.min_users] = 0
    return users


HEURISTICS = "heuristics"  # the scorer's name in a manifest when no sentiment is involved
_LOWEST_STARS, _HIGHEST_STARS = 1.0, 5.0
_EXAMPLES = 10  # campaigns named in the summary
_EXAMPLE_LENGTH = 120
_SOMETHING = r"[^\x00-\x20\x7f-\x{a0}\p{Z}\x{200b}\x{ad}\x{2060}\x{feff}\x{fffd}]"


class SentimentScorer(Protocol):
    """Anything that reads the sentiment of a text from the text alone."""

    @property
    def version(self) -> str:
        """Equal versions give equal scores."""

    def score(self, texts: pd.Series, keys: UInt64Array) -> Float32Array:
        """Sentiment in [0, 1] of each text. `keys`: the texts' `TextFeatures.key`."""


@dataclass(frozen=True)
class CommentScores:
    """What scoring gives for a view, on its index.

    `quality`: float32 in [0, 1], 0 without a comment. `sentiment`: float32 in [0, 1], what was read
    from the text alone, NaN without a comment or scorer. `campaign_users`: int32, the users behind
    the row's campaign, 0 if it is in none. `scorer`: `HEURISTICS` or the scorer's version."""

    quality: pd.Series
    sentiment: pd.Series
    campaign_users: pd.Series
    scorer: str
    summary: dict[str, Any]


@dataclass(frozen=True)
class Texts:
    """The distinct comments of a view, in order of first appearance."""

    texts: pd.Series
    codes: Int64Array  # for each row of the view, the position of its text
    features: TextFeatures
    group: Int64Array  # number of the group of near-equal texts that each text belongs to


def distinct_texts(view: pd.DataFrame) -> tuple[pd.Series, Int64Array]:
    """The distinct comments of `view` and, for each row, the position of its comment."""
    codes, texts = pd.factorize(view[COMMENT])
    return pd.Series(texts, dtype="str"), codes.astype(np.int64)


def group_texts(
    codes: Int64Array, features: TextFeatures, config: CommentConfig, similar: Similar
) -> Int64Array:
    """Number of the group of near-equal texts that each text belongs to. `codes` are the positions
    of the rows' texts; `similar` is as for `group_near_duplicates`."""
    searched = features.words >= config.campaign.min_words
    rows = np.bincount(codes, minlength=len(features.key))
    return group_near_duplicates(features.key, features.bands, rows, searched, similar)


def similar_among(texts: pd.Series) -> Similar:
    """The exact comparison of pairs of `texts`."""

    def similar(pairs: Int64Array) -> BoolArray:
        compared = np.zeros(len(texts), dtype=np.bool_)
        compared[pairs] = True
        position = np.cumsum(compared) - 1
        return are_similar(plain_words(texts[compared]), position[pairs])

    return similar


def score_comments(
    view: pd.DataFrame, config: CommentConfig, scorer: SentimentScorer | None = None
) -> CommentScores:
    """Score every row of `view` (USER, RATING, TIMESTAMP, COMMENT), without cache or files. A pure
    function of the set of rows: order and index play no part."""
    texts, codes = distinct_texts(view)
    features = describe(texts)
    group = group_texts(codes, features, config, similar_among(texts))
    known = Texts(texts, codes, features, group)
    sentiment = None if scorer is None else scorer.score(texts, features.key)
    name = HEURISTICS if scorer is None else scorer.version
    return combine(view, known, sentiment, name, config)


def combine(
    view: pd.DataFrame,
    known: Texts,
    sentiment: Float32Array | None,
    scorer: str,
    config: CommentConfig,
) -> CommentScores:
    """The scores of a view from what is known of its texts (`sentiment`: one entry a text)."""
    blank = is_blank(known.texts)
    informative = informativeness(known.features)
    codes = known.codes
    users = _campaign_users(view, known, config)
    if sentiment is None:
        read = np.full(len(known.texts), np.nan, dtype=np.float32)
        quality = informative[codes]
    else:
        read = np.where(blank, np.nan, sentiment).astype(np.float32)
        share = config.sentiment_weight
        quality = (share * sentiment + (1 - share) * informative)[codes]
        quality *= agreement(sentiment[codes], view[RATING].to_numpy(dtype=np.float64))
    quality = np.where(blank[codes], 0.0, quality * campaign_factor(users, config))
    quality = np.clip(quality, 0.0, 1.0).astype(np.float32)
    told = {COMMENT_QUALITY: quality, "sentiment": read[codes], "campaign_users": users}
    columns = {name: pd.Series(values, view.index, name=name) for name, values in told.items()}
    summary = {
        "scorer": scorer,
        "rows": len(view),
        "without_comment": int(blank[codes].sum()),
        "distinct_texts": len(known.texts),
        "campaign_rows": int((users > 0).sum()),
        "campaigns": _largest_campaigns(view, known, users),
    }
    return CommentScores(columns.pop(COMMENT_QUALITY), **columns, scorer=scorer, summary=summary)


def is_blank(texts: pd.Series) -> BoolArray:
    """Whether a text has nothing to read: no letter, digit, sign or emoji."""
    read = pc.match_substring_regex(one_chunk(texts), _SOMETHING)
    return ~read.to_numpy(zero_copy_only=False)


def informativeness(features: TextFeatures) -> Float64Array:
    """How much a text says, in [0, 1], one entry a text: long enough, and no repetition."""
    length = np.log1p(features.words) / np.log1p(FULL_LENGTH_WORDS)
    return np.minimum(length, 1.0) * features.variety


def agreement(sentiment: Float32Array, rating: Float64Array) -> Float64Array:
    """What a contradiction between text and stars leaves of a score, in [0, 1]."""
    stars = (rating - _LOWEST_STARS) / (_HIGHEST_STARS - _LOWEST_STARS)
    excess = np.abs(sentiment - stars) - MISMATCH_TOLERANCE
    return 1.0 - np.maximum(excess, 0.0) / (1.0 - MISMATCH_TOLERANCE)


def campaign_factor(users: Int32Array, config: CommentConfig) -> Float64Array:
    """What a campaign of so many users leaves of a score: half at the threshold, then ever less.
    The users of a campaign share what half of `min_users` believed reviews would count."""
    return np.where(users > 0, 0.5 * config.campaign.min_users / np.maximum(users, 1), 1.0)


def _campaign_users(view: pd.DataFrame, known: Texts, config: CommentConfig) -> Int32Array:
    long_enough = known.features.words >= config.campaign.min_words
    group = np.where(long_enough, known.group, -1)[known.codes]
    return campaign_users(group, view[USER], view[TIMESTAMP], config.campaign)


def _largest_campaigns(view: pd.DataFrame, known: Texts, users: Int32Array) -> list[dict[str, Any]]:
    """The campaigns with the most users, with their most frequent text."""
    involved = users > 0
    rows = pd.DataFrame(
        {
            "group": known.group[known.codes[involved]],
            "text": known.codes[involved],
            "user": view[USER][involved].array,
            "time": view[TIMESTAMP][involved].array,
        }
    )
    if rows.empty:
        return []
    wanted = {"rows": ("text", "size"), "users": ("user", "nunique")}
    times = {"first": ("time", "min"), "last": ("time", "max")}
    found = rows.groupby("group").agg(**wanted, **times)
    largest = found.sort_values(["users", "rows", "first"], ascending=False).head(_EXAMPLES)
    shown = rows[rows["group"].isin(largest.index)]
    counts = shown.groupby(["group", "text"]).size().sort_values(ascending=False, kind="stable")
    text_of = counts.reset_index().drop_duplicates("group").set_index("group")["text"]
    largest = largest.assign(text=known.texts.iloc[text_of.loc[largest.index]].to_numpy())
    return [
        {
            "text": str(campaign["text"])[:_EXAMPLE_LENGTH],
            "rows": int(campaign["rows"]),
            "users": int(campaign["users"]),
            "first": campaign["first"].date().isoformat(),
            "last": campaign["last"].date().isoformat(),
        }
        for campaign in largest.to_dict("records")
    ]
