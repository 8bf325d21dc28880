"""Scoring as a step of the refresh: configuration and stored state in, scores out."""

from datetime import datetime

import pandas as pd

from recsys.data.comments.config import CommentConfig
from recsys.data.comments.scoring import CommentScores, score_comments
from recsys.settings import Settings


def score_view(
    settings: Settings, view: pd.DataFrame, *, as_of: datetime, may_train: bool
) -> CommentScores:
    """Score every row of `view`; see the package's docstring for the contract.

    Raises
    ------
    ConfigError
        If ``config/comments.yaml`` has a bad value.
    """
    return score_comments(view, settings.read_config("comments.yaml", CommentConfig))
