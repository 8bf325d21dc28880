"""Claim: a reason is true. Without the product of the history that it names, the product that it
explains scores lower: in at least 95 % of 10,000 lists, whatever the family of the model.

    python -m benchmarks.serving.reasons [--lists 10000]

Each list of ten is made and explained as the service does it. For the check each named product is
taken out of the customer's history by itself, and the model asked once more for that one customer:
a list counts if the scores of all products that have such a reason fall. Beside it, what `explain`
costs a list, with the list itself as the reference.

The same lists are made once more under rules that fill most of them. For the check every rule is
left out by itself: a list counts if of the products of rules those, and only those, are said to
stand there by a rule that stand lower, or not at all, without it.
"""

import argparse
import statistics
import time
from collections import Counter
from datetime import UTC, datetime

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks.serving.harness import add_model, fresh_home, make_histories
from recsys.merchandising.placements import Placement
from recsys.merchandising.ranking import NOTHING, Wanted
from recsys.merchandising.reasons import Reason, steered, why_recommended
from recsys.merchandising.recommending import Recommended, Snapshot, history_of, recommend
from recsys.merchandising.rules import Rule, matching
from recsys.merchandising.snapshots import load_snapshot
from recsys.merchandising.steering import Steering, compile_steering
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


class Ruled:
    """A shop whose rules lift products, and its lists with and without each of them."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot, now = snapshot, datetime.now(UTC)
        names = np.random.default_rng(6).permutation(snapshot.catalogue.item_ids).tolist()
        tenth = len(names) // 10
        wishes = [
            {"name": "much", "action": "boost", "strength": 1, "products": {"ids": names[:tenth]}},
            {
                "name": "less",
                "action": "boost",
                "strength": 0.2,
                "products": {"ids": names[99:999]},
            },
            {"name": "pin", "action": "pin", "position": 2, "products": {"ids": names[-1:]}},
            {"name": "quota", "action": "quota", "at_least": 1, "products": {"ids": names[-9:-1]}},
        ]
        rules = [Rule.model_validate(one | {"author": "-", "reason": "-"}) for one in wishes]
        meant = [(rule, matching(rule.products, snapshot.catalogue, now)) for rule in rules]
        self.meant = {rule.name: mask for rule, mask in meant}
        self.steering = compile_steering(snapshot.catalogue, meant, Placement())
        self.without = {
            left_out: compile_steering(
                snapshot.catalogue,
                [pair for pair in meant if pair[0].name != left_out],
                Placement(),
            )
            for left_out in self.meant
        }

    def list_of(self, history: Histories, now: int, steering: Steering | None) -> Recommended:
        wanted = Wanted(LENGTH, True, self.snapshot.catalogue.available, NOTHING, steering)
        return recommend(self.snapshot, history, wanted, now)

    def are_true(self, history: Histories, now: int) -> tuple[int, bool]:
        """How many reasons of a list are rules, and whether what is said of rules is so."""
        made = self.list_of(history, now, self.steering)
        found = why_recommended(self.snapshot, history, made, now)
        told = steered(
            *(self.steering, made.ranked, found),
            lambda other: self.list_of(history, now, other).ranked.items,
        )
        lists = {
            name: self.list_of(history, now, other).ranked.items
            for name, other in self.without.items()
        }
        right = True
        for place, (item, reason) in enumerate(zip(made.ranked.items, told, strict=True)):
            lower = [
                name
                for name, items in lists.items()
                if self.meant[name][item] and (item not in items or items.index(item) > place)
            ]
            several = sum(mask[item] for mask in self.meant.values()) > 1
            right &= reason.rule in lower if lower else reason.kind != "rule" or several
        return sum(reason.kind == "rule" for reason in told), right


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
        ruled, by_rule, right = Ruled(snapshot), 0, 0
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
            count, true = ruled.are_true(history, now)
            by_rule, right = by_rule + count, right + true
        share = f"{fell / asked:.2%} of {asked} lists" if asked else "of no list"
        shares = ", ".join(f"{kind} {n / kinds.total():.0%}" for kind, n in kinds.most_common())
        cost = statistics.median(explained) * 1000
        print(
            f"{family}: the score falls in {share} (wanted: at least 95 %); {shares}; "
            f"explaining {cost:.2f} ms, the list itself {statistics.median(plain) * 1000:.2f} ms; "
            f"what is said of rules is true in {right / options.lists:.2%} of the lists, "
            f"{by_rule / options.lists:.1f} products of a list are there by a rule"
        )


if __name__ == "__main__":
    main()
