"""What the forms that start a job offer to choose from. Read whenever Airflow parses a DAG file, so
it costs a millisecond, imports nothing heavy, and never fails."""

import json
from typing import Final

from recsys.settings import Settings

FAMILIES: Final = (
    "als",
    "bpr",
    "hybrid",
    "item_knn",
    "linear",
    "popularity",
    "recent_popularity",
    "self_attention",
)
"""The model types that can be trained, see `recsys.models.model_types`."""

_MOST: Final = 30
_LARGEST: Final = 2**24  # bytes; a registry of a thousand models has a few megabytes


def model_ids(settings: Settings) -> list[str]:
    """The models that may be brought into service, newest first, `_MOST` of them; none if the
    registry cannot be read: what the job needs of it, it reads and judges itself."""
    path = settings.registry
    try:
        if path.stat().st_size > _LARGEST:
            return []
        known = json.loads(path.read_bytes())["models"]
        made = {name: str(one["created_at"]) for name, one in known.items() if _stands(one)}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return []
    return sorted(made, key=lambda name: made[name], reverse=True)[:_MOST]


def _stands(entry: dict[str, object]) -> bool:
    return entry.get("status", "active") != "archived"
