"""Claim: a reason is true. Without the product of the history that it names, the product that it
explains scores lower: in at least 95 % of 10,000 lists, whatever the family of the model.

    python -m benchmarks.serving.reasons [--lists 10000]

Each list of ten is made and explained as the service does it. For the check each named product is
taken out of the customer's history by itself, and the model asked once more for that one customer:
a list counts if the scores of all products that have such a reason fall. Beside it, what `explain`
costs a list, with the list itself as the reference.
"""

import argparse
import statistics
import time
from collections import Counter

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks.serving.harness import add_model, fresh_home, make_histories
from recsys.merchandising.ranking import NOTHING, Wanted
from recsys.merchandising.reasons import Reason, why_recommended
from recsys.merchandising.recommending import Snapshot, history_of, recommend
from recsys.merchandising.snapshots import load_snapshot
from recsys.models.base import Histories
from recsys.models.histories import keep_entries
from recsys.models.hybrid import Hybrid
from recsys.models.model_types import MODEL_TYPES

USERS, ITEMS, LENGTH = 26_000, 2_244, 10
SMALL = {
    "als": {"factors": 32, "starts": 1, "iterations": 5},
    "bpr": {"factors": 32, "iterations": 10},
}
SMALL["hybrid"] = {"als": SMALL["als"], "weights": {"content": 0.3}}
DAY = 86_400


def texts() -> np.ndarray:
    """Vectors of length one, those of a taste near to each other."""
    random = np.random.default_rng(4)
    near = np.repeat(random.normal(size=(8, 64)), -(-ITEMS // 8), axis=0)[:ITEMS]
    found = near + random.normal(size=(ITEMS, 64))
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


def all_fall(
    snapshot: Snapshot, history: Histories, items: list[int], found: list[Reason], now: int
) -> bool | None:
    """Whether the scores of all products fall that have a product of the history as their reason,
    None if none has."""
    model = snapshot.artifact.model
    named: dict[int, list[int]] = {}
    for item, reason in zip(items, found, strict=True):
        if reason.item is not None:
            named.setdefault(reason.item, []).append(item)
    if not named:
        return None
    before = model.score(history, now)[0]
    after = {one: model.score(keep_entries(history, history.items != one), now)[0] for one in named}
    return all(
        (after[one][explained] < before[explained]).all() for one, explained in named.items()
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lists", type=int, default=10_000)
    options = parser.parse_args()
    threadpool_limits(limits=1, user_api="blas")  # as in the service
    histories = make_histories(USERS, ITEMS)
    now = int(histories.times.max()) + DAY
    print(
        f"input: {USERS} customers x {ITEMS} products, {options.lists} lists of {LENGTH} a family"
    )
    for family in sorted(MODEL_TYPES):
        model = MODEL_TYPES[family].create(SMALL.get(family, {}), seed=1)
        if isinstance(model, Hybrid):
            model.use_content(texts())
        settings = fresh_home(f"reasons_{family}")
        path = add_model(settings, model.fit(histories, ITEMS), histories, ITEMS, "m1")
        snapshot = load_snapshot(settings, path, "m1", 0)
        wanted = Wanted(LENGTH, True, snapshot.catalogue.available, NOTHING)
        kinds, fell, asked = Counter(), 0, 0
        plain, explained = [], []
        for user in np.random.default_rng(2).integers(USERS, size=options.lists).tolist():
            history = history_of(snapshot, str(user), (), [], now)
            started = time.perf_counter()
            made = recommend(snapshot, history, wanted, now)
            between = time.perf_counter()
            found = why_recommended(snapshot, history, made, now)
            plain.append(between - started)
            explained.append(time.perf_counter() - between)
            kinds.update(reason.kind for reason in found)
            fall = all_fall(snapshot, history, made.ranked.items, found, now)
            if fall is not None:
                asked, fell = asked + 1, fell + fall
        share = f"{fell / asked:.2%} of {asked} lists" if asked else "of no list"
        shares = ", ".join(f"{kind} {n / kinds.total():.0%}" for kind, n in kinds.most_common())
        cost = statistics.median(explained) * 1000
        print(
            f"{family}: the score falls in {share} (wanted: at least 95 %); {shares}; "
            f"explaining {cost:.2f} ms, the list itself {statistics.median(plain) * 1000:.2f} ms"
        )


if __name__ == "__main__":
    main()
