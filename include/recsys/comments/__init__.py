"""How much a review's comment adds to its stars: ``comment_quality`` in [0, 1].

`score_view` takes every accepted row of a version, duplicates resolved, in any order, with the
columns USER, PRODUCT, RATING, TIMESTAMP and COMMENT; in the incremental strategy as well: what
depends on one text alone is read from a cache, and what depends on all rows (campaigns) is computed
afresh. So incremental = full. ``as_of`` is the end of the run's data interval; only the full
strategy may train a scorer. `score_comments` is the pure core: rows in, scores out, no files."""

from recsys.comments.job import score_view
from recsys.comments.scoring import HEURISTICS, CommentConfig, CommentScores, score_comments

__all__ = ["HEURISTICS", "CommentConfig", "CommentScores", "score_comments", "score_view"]
