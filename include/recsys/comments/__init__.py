"""How much a review's comment adds to its stars: ``comment_quality`` in [0, 1].

What the refresh calls::

    scores = score_view(settings, config, view, as_of=as_of, may_train=plan is full)
    view[COMMENT_QUALITY] = scores.quality          # float32, same index as `view`
    manifest["comment_scorer"] = scores.scorer      # "heuristics" or a scorer's version
    summary["comments"] = scores.summary            # small, JSON-able

``view`` is every accepted row of the version, duplicates already resolved, with the columns
USER, PRODUCT, RATING, TIMESTAMP and COMMENT (others are ignored); the order of its rows is of
no importance. Give the whole view in the incremental strategy as well: whatever depends on one
text alone is read from a cache, and only texts that the cache has never seen are scored, while
what depends on all rows (campaigns) is computed afresh. So incremental = full. ``as_of`` is
the end of the run's data interval; only the full strategy may train a scorer.

`score_comments` is the pure core: rows in, scores out, no files. `scores.sentiment` and
`scores.campaign_users` are for the quality report.
"""

from recsys.comments.job import score_view
from recsys.comments.scoring import HEURISTICS, CommentConfig, CommentScores, score_comments

__all__ = ["HEURISTICS", "CommentConfig", "CommentScores", "score_comments", "score_view"]
