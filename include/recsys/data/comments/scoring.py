"""The formula: from the features of a text and the rows it stands in to ``comment_quality``."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from recsys.data.comments.campaigns import campaign_users
from recsys.data.comments.config import CommentConfig
from recsys.data.comments.features import TextFeatures, describe
from recsys.data.schema import COMMENT, COMMENT_QUALITY, TIMESTAMP, USER

HEURISTICS = "heuristics"  # the scorer's name in a manifest when no sentiment is involved


@dataclass(frozen=True)
class CommentScores:
    """What scoring gives for a view.

    Attributes
    ----------
    quality
        float32 in [0, 1], index of the view; 0 where there is no comment.
    campaign_users
        int32, index of the view: users behind the campaign a row belongs to, 0 when none.
    scorer
        ``"heuristics"`` or the version of the sentiment scorer.
    summary
        Counts for the run's summary, JSON-able.
    """

    quality: pd.Series
    campaign_users: pd.Series
    scorer: str
    summary: dict[str, Any]


def score_comments(view: pd.DataFrame, config: CommentConfig) -> CommentScores:
    """Score every row of `view` (USER, TIMESTAMP, COMMENT) by heuristics.

    A pure function of the set of rows: order and index play no part.
    """
    codes, texts = pd.factorize(view[COMMENT])
    features = describe(pd.Series(texts, dtype="str"))
    spread = _campaign_users(view, features, codes, config)
    quality = informativeness(features, config)[codes] * campaign_factor(spread, config)
    return CommentScores(
        quality=pd.Series(quality.astype(np.float32), index=view.index, name=COMMENT_QUALITY),
        campaign_users=pd.Series(spread, index=view.index, name="campaign_users"),
        scorer=HEURISTICS,
        summary={
            "scorer": HEURISTICS,
            "rows": len(view),
            "without_comment": int((features.words[codes] == 0).sum()),
            "distinct_texts": len(texts),
            "campaign_rows": int((spread > 0).sum()),
        },
    )


def informativeness(features: TextFeatures, config: CommentConfig) -> np.ndarray:
    """How much a text says, in [0, 1], one entry a text: long enough, and no repetition."""
    length = np.log1p(features.words) / np.log1p(config.full_length_words)
    return np.minimum(length, 1.0) * features.variety


def campaign_factor(users: np.ndarray, config: CommentConfig) -> np.ndarray:
    """What a campaign of so many users leaves of a score: half at the threshold, then ever less.

    Never the whole: the users of a campaign share what one half-believed review would count.
    """
    return np.where(users > 0, 0.5 * config.campaign.min_users / np.maximum(users, 1), 1.0)


def _campaign_users(
    view: pd.DataFrame, features: TextFeatures, codes: np.ndarray, config: CommentConfig
) -> np.ndarray:
    group, _ = pd.factorize(features.key)
    group[features.words < config.campaign.min_words] = -1
    user, _ = pd.factorize(view[USER])
    return campaign_users(group[codes], user, view[TIMESTAMP], config.campaign)
