"""Small shops with models that can be served: two tastes, known users of each."""

import json
from collections.abc import Callable

import numpy as np
import pandas as pd

from recsys import schema
from recsys.arrays import Float32Array, Int64Array
from recsys.data.simulated import mark_sample
from recsys.models.als import Als, AlsParameters
from recsys.models.artifacts import save_artifact
from recsys.models.base import Histories, Model
from recsys.models.complements import Complements
from recsys.models.histories import take_users
from recsys.publishing import sha256_of
from recsys.registry import Registry
from recsys.settings import Settings

ITEMS = 40
USERS = 60
BY_ID = np.array(sorted(range(USERS), key=str))
DATA_VERSION = "v20250115_020000"
LIPSTICKS = range(ITEMS // 2)
SHAMPOOS = range(ITEMS // 2, ITEMS)


def product_id(item: int) -> str:
    return f"p{item}"


def products(
    unavailable: tuple[int, ...] = (),
    families: dict[int, str] | None = None,
    name_of: Callable[[int], str] = product_id,
) -> pd.DataFrame:
    """A catalogue: lipsticks of brand A, shampoos of brand B, item 7 costs 7,000 dong."""
    numbers = range(ITEMS)
    return pd.DataFrame(
        {
            "product_id": [name_of(item) for item in numbers],
            "product_name": [
                f"Son môi số {item}" if item in LIPSTICKS else f"Dầu gội số {item}"
                for item in numbers
            ],
            "brand": ["Đẹp" if item in LIPSTICKS else "Sạch" for item in numbers],
            "category": ["Trang điểm" if item in LIPSTICKS else "Tóc" for item in numbers],
            "price": [1000.0 * item if item else float("nan") for item in numbers],
            "description": ["" for _ in numbers],
            "family_id": [(families or {}).get(item, f"f{item}") for item in numbers],
            "available": [item not in unavailable for item in numbers],
        }
    )


def histories(seed: int = 0) -> Histories:
    """User u has had 6 products of one taste: even users lipsticks, odd ones shampoos."""
    random = np.random.default_rng(seed)
    rows = [
        random.choice(LIPSTICKS if user % 2 == 0 else SHAMPOOS, size=6, replace=False)
        for user in range(USERS)
    ]
    count = 6 * USERS
    return Histories(
        indptr=np.arange(0, count + 1, 6, dtype=np.int64),
        items=np.concatenate(rows).astype(np.int32),
        confidence=np.full(count, 5.5, dtype=np.float32),
        weight=np.ones(count, dtype=np.float32),
        times=np.tile(1_700_000_000 + np.arange(6, dtype=np.int64) * 86_400, USERS),
    )


def add_model(
    settings: Settings,
    model_id: str,
    *,
    model: Model | None = None,
    seed: int = 0,
    select: bool = True,
    recall: float = 0.12,
    shop_products: pd.DataFrame | None = None,
    data_version: str = DATA_VERSION,
    sample_users: tuple[str, ...] = ("0", "1", "2"),
    baseline: float = 0.05,
    metrics: dict[str, float] | None = None,
    done: Histories | None = None,
    signal_weights: dict[str, float] | None = None,
    complements: Complements | None = None,
    due_days: Float32Array | None = None,
    got: Int64Array | None = None,
    segments: dict[str, dict[str, float]] | None = None,
    manifest: dict[str, str] | None = None,
    name_of: Callable[[int], str] = product_id,
) -> None:
    """Write an artefact through its writer and register it; `select` makes it the current best.
    `got` is of the entries of `done` in the order of the users' ids."""
    done = histories(seed) if done is None else done
    fitted = model or Als(AlsParameters(factors=2, iterations=10), seed=seed).fit(done, ITEMS)
    save_artifact(
        settings.artifacts / fitted.model_type / model_id,
        model=fitted,
        item_ids=[name_of(item) for item in range(ITEMS)],
        user_ids=[str(user) for user in BY_ID],
        histories=take_users(done, BY_ID),
        popularity=np.bincount(done.items, minlength=ITEMS).astype(np.float32),
        products=products(name_of=name_of) if shop_products is None else shop_products,
        manifest={
            "model_id": model_id,
            "data_version": data_version,
            "metrics": {"recall_at_10": recall, "recall_at_10_low": recall},
            "sample_users": list(sample_users),
            **({} if signal_weights is None else {"signal_weights": signal_weights}),
            **(manifest or {}),
        },
        complements=complements,
        due_days=due_days,
        got=got,
    )
    registry = Registry(settings)
    registry.register(
        model_id,
        data_version=data_version,
        model_type=fitted.model_type,
        hyperparameters={},
        metrics={"recall_at_10": recall, "recall_at_10_low": recall} | (metrics or {}),
        baseline_comparison={"passes": True, "baseline_recall_at_10": baseline},
        training_info={} if segments is None else {"segments": segments},
    )
    if select:
        registry.select_best(data_version, selected_by="test")


def say_made_up(settings: Settings) -> None:
    """Let the data version of the shop be one of a sample shop, whose customers do not exist."""
    reviews = settings.raw / "viecomrec" / "data_reviews_purchase.csv"
    reviews.parent.mkdir(parents=True)
    reviews.write_text("user_id,product_id\n")
    mark_sample(reviews.parent, reviews)
    manifest = settings.versions / DATA_VERSION / schema.MANIFEST_FILE
    manifest.parent.mkdir(parents=True)
    sources = [{"path": str(reviews), "sha256": sha256_of(reviews)}]
    manifest.write_text(json.dumps({"as_of": "2025-01-15T02:00:00+07:00", "sources": sources}))
