"""Weekly drift detection: last week against its reference, with evidence.

>>> from recsys.drift import detect_interaction_drift, detect_popularity_drift, detect_rating_drift
"""

from recsys.drift.customers import detect_interaction_drift
from recsys.drift.popularity import detect_popularity_drift
from recsys.drift.ratings import detect_rating_drift

__all__ = ["detect_interaction_drift", "detect_popularity_drift", "detect_rating_drift"]
