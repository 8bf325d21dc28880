"""Small random shops, wishes and requests, and what a list should be by the words of
docs/placements.md: slowly, product by product, without anything of what is tested."""

import dataclasses
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from recsys.merchandising.placements import Placement
from recsys.merchandising.ranking import NOTHING, Wanted
from recsys.merchandising.recommending import (
    CONTENT,
    POPULARITY,
    ContentIndex,
    Recommended,
    Snapshot,
    history_of,
    keep,
    made_in_advance,
    popular,
    recommend,
    search,
    similar,
)
from recsys.merchandising.rules import Rule, RuleSet
from recsys.merchandising.snapshots import load_snapshot, steered, with_more_candidates
from recsys.models.als import Als, AlsParameters
from recsys.models.artifacts import save_artifact
from recsys.models.base import Histories
from recsys.settings import Settings

NOW = datetime(2026, 12, 1, 9, tzinfo=UTC)
USERS = 6
SIZES = ((5, 16), (40, 121), (200, 401))
PLACE = "home"
_ACTIONS = ("hide", "pin", "boost", "bury", "limit", "quota")


class Product(NamedTuple):
    """One row of a random shop."""

    item: int
    family: str
    brand: str
    category: str
    price: float | None
    available: bool


def make_shop(root: Path, random: np.random.Generator) -> tuple[Snapshot, list[Product]]:
    """A model that is served, with texts of most products, and its products."""
    # Of small shops whole lists are short; what is looked at of large ones is not all.
    smallest, largest = SIZES[int(random.choice(len(SIZES), p=(0.8, 0.15, 0.05)))]
    count = int(random.integers(smallest, largest))
    products = [
        Product(
            item,
            f"f{random.integers(count) if random.random() < 0.4 else 100 + item}",
            str(random.choice(["", "Mai", "Đào", "Cúc"])),
            str(random.choice(["", "Son", "Kem"])),
            None if random.random() < 0.1 else float(random.integers(1, 9)),
            bool(random.random() < 0.85) or item < 5,
        )
        for item in range(count)
    ]
    lengths = random.integers(1, 4, USERS)
    indptr = np.append(0, np.cumsum(lengths)).astype(np.int64)
    entries = int(indptr[-1])
    items = np.concatenate([random.permutation(count)[:n] for n in lengths]).astype(np.int32)
    histories = Histories(
        indptr[: USERS + 1] if entries == len(items) else np.append(0, np.cumsum(lengths)),
        items,
        np.full(entries, 5, np.float32),
        np.ones(entries, np.float32),
        np.arange(entries, dtype=np.int64),
    )
    model = Als(AlsParameters(factors=4, starts=1))
    model._set(random.normal(size=(count, 4)).astype(np.float32))
    ids = [f"p{item:02}" for item in range(count)]
    table = pd.DataFrame(products).assign(product_id=ids)
    path = save_artifact(
        root / "als_1",
        model=model,
        item_ids=ids,
        user_ids=[str(user) for user in range(USERS)],
        histories=histories,
        popularity=np.bincount(items, minlength=count).astype(np.float32),
        products=table.rename(columns={"family": "family_id"}),
        manifest={"model_id": "als_1", "data_version": "v1"},
    )
    snapshot = load_snapshot(Settings(root), path, "als_1", 20)
    vectors = random.normal(size=(count, 3)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    covered = random.random(count) < 0.9
    vectors[~covered] = 0
    queries = random.normal(size=(USERS + 1, 3)).astype(np.float32)
    content = ContentIndex(vectors, covered, lambda query: queries[int(query)])
    return dataclasses.replace(snapshot, content=content), products


def make_rules(random: np.random.Generator, products: list[Product]) -> tuple[Rule, ...]:
    """Up to eight, of all actions, times and placements."""
    return tuple(make_rule(random, products, n) for n in range(random.integers(0, 9)))


def make_rule(random: np.random.Generator, products: list[Product], number: int) -> Rule:
    action = str(random.choice(_ACTIONS))
    meant: dict[str, Any] = {}
    if random.random() < 0.4:
        chosen = random.permutation(len(products))[: random.integers(1, 4)]
        meant["ids"] = [f"p{item:02}" for item in chosen]
    if not meant or random.random() < 0.3:
        what = random.choice(["brands", "categories", "min_price", "max_price"])
        meant[what] = {"brands": ["mai"], "categories": ["SON"]}.get(what, int(random.integers(9)))
    own: dict[str, Any] = {
        "hide": {},
        "pin": {"position": int(random.integers(1, 9))},
        "boost": {"strength": float(random.uniform(0.1, 3))},
        "bury": {"strength": float(random.uniform(0.1, 3))},
        "limit": {"at_most": int(random.integers(1, 4))},
        "quota": {"at_least": int(random.integers(1, 4))},
    }[action]
    if random.random() < 0.2:
        own["start"] = NOW.replace(day=int(random.integers(1, 4)))
    if random.random() < 0.2:
        own["end"] = NOW.replace(month=11, day=int(random.integers(1, 31)))
        own.pop("start", None)
    return Rule.model_validate(
        {"name": f"r{number}", "action": action, "products": meant, **own}
        | {"author": "lan", "reason": "a test"}
        | ({"placements": [str(random.choice([PLACE, "mail"]))]} if random.random() < 0.4 else {})
    )


def make_placement(random: np.random.Generator) -> Placement:
    spread = {
        "brand": int(random.integers(1, 4)) if random.random() < 0.4 else None,
        "category": int(random.integers(1, 5)) if random.random() < 0.3 else None,
        "diversity": float(random.uniform(0, 0.9)) if random.random() < 0.3 else 0.0,
    }
    return Placement.model_validate({"spread": spread, "rules": bool(random.random() < 0.9)})


class Case(NamedTuple):
    """A request with its answer, and what the reference needs to know."""

    snapshot: Snapshot
    products: list[Product]
    rules: tuple[Rule, ...]
    placement: Placement | None
    wanted: Wanted
    barred: set[int]  # what the customer had or the page shows, of which no listing may stand
    made: Recommended
    scores: np.ndarray
    path: str
    ask: Callable[[Wanted], Recommended]


def cases(seed: int, root: Path, requests: int = 25) -> Iterator[Case]:
    """All requests to one random shop, under several sets of rules."""
    random = np.random.default_rng(seed)
    bare, products = make_shop(root, random)
    for _ in range(4):
        rules, placement = make_rules(random, products), make_placement(random)
        snapshot = steered(bare, RuleSet(rules, "x"), {PLACE: placement}, NOW)
        snapshot = with_more_candidates(snapshot, 20, 20)
        for _ in range(requests // 4):
            yield make_case(random, snapshot, products, rules, placement)


def make_case(
    random: np.random.Generator,
    snapshot: Snapshot,
    products: list[Product],
    rules: tuple[Rule, ...],
    placement: Placement,
) -> Case:
    at_home = random.random() < 0.8
    steering = snapshot.steerings.of(PLACE if at_home else None)
    allowed = snapshot.catalogue.available.copy()
    if random.random() < 0.3:
        allowed &= random.random(len(allowed)) < 0.7
    excluded = random.permutation(len(products))[: random.integers(0, 3)].astype(np.int32)
    seen = bool(random.random() < 0.7)
    topk = int(random.integers(1, 13))
    wanted = Wanted(topk, seen, allowed, excluded, steering)
    user = str(random.integers(USERS + 1))
    history = history_of(snapshot, user, (), [], 0)
    path = str(random.choice(["recommend", "lists", "similar", "search", "popular"]))
    if path == "lists":
        seen = True
        wanted = Wanted(topk, True, snapshot.catalogue.available, NOTHING, steering)
    barred: set[int] = set()
    content = snapshot.content
    assert content is not None

    def searched(wanted: Wanted) -> Recommended:
        return Recommended(search(snapshot, content, user, wanted), CONTENT)

    item = int(random.integers(len(products))) if path == "similar" else -1
    ask: Callable[[Wanted], Recommended] = {
        "similar": partial(similar, snapshot, item),
        "search": searched,
        "popular": partial(popular, snapshot, history),
        "recommend": partial(recommend, snapshot, history, now=0),
        "lists": partial(in_advance, snapshot, user, history),
    }[path]
    made = ask(wanted)
    if path == "similar":
        barred, scores = {item}, snapshot.artifact.model.similar(item)
    elif path == "search":
        scores = content.vectors @ content.encode(user)
    else:
        if seen and made.fallback_method != "again":
            barred = set(history.items.tolist())
        scores = snapshot.artifact.model.score(history, 0)[0]
    if made.fallback_method == POPULARITY:
        scores = snapshot.popularity
    where = placement if at_home else None
    return Case(snapshot, products, rules, where, wanted, barred, made, scores, path, ask)


def in_advance(snapshot: Snapshot, user: str, history: Histories, wanted: Wanted) -> Recommended:
    """As the service answers who asks for nothing but a length; raises `AssertionError` if it is
    not what it answers who asks once more."""
    position = snapshot.position(user)
    if position is None or wanted.explore is not None:  # what is drawn is made anew each time
        return recommend(snapshot, history, wanted, 0)
    asked = (snapshot, position, wanted.topk, wanted.steering, NOTHING)
    ranked = made_in_advance(*asked)
    made = Recommended(ranked, None) if ranked else recommend(snapshot, history, wanted, 0)
    keep(snapshot, position, wanted, made)
    again = made_in_advance(*asked)
    assert wanted.steering is None or made.fallback_method or again == made.ranked
    return made


def means(rule: Rule, product: Product) -> bool:
    """Whether the rule is about the product."""
    wish, price = rule.products, product.price
    return (
        (not wish.ids or f"p{product.item:02}" in wish.ids)
        and (not wish.brands or product.brand == "Mai")
        and (not wish.categories or product.category == "Son")
        and (wish.min_price is None or (price is not None and price >= wish.min_price))
        and (wish.max_price is None or (price is not None and price <= wish.max_price))
    )


def worth_of(ladder: list[float], place: float) -> float:
    """What a place is worth, from 0, by the scores in order: between two of them as much as it is
    between, beyond them by even steps: a fiftieth of the way from the first to the fiftieth."""
    last = len(ladder) - 1
    step = ((ladder[0] - ladder[min(last, 49)]) / 50) or 1.0
    within = min(max(place, 0.0), float(last))
    above = int(within)
    part = within - above
    worth = (1 - part) * ladder[above] + part * ladder[min(above + 1, last)]
    return worth + step * (within - place)


class Reference:
    """One list by the words of the page."""

    def __init__(self, case: Case) -> None:
        self.case, self.placement = case, case.placement or Placement()
        place = PLACE if case.placement else ""
        rules = [
            rule
            for rule in case.rules
            if (rule.start is None or rule.start <= NOW)
            and (rule.end is None or rule.end > NOW)
            and (not rule.placements or place in rule.placements)
        ]
        if case.path == "popular" or not self.placement.rules:
            rules = [rule for rule in rules if rule.action == "hide"]
        if case.path == "popular":
            self.placement = Placement()
        self.of = {action: [r for r in rules if r.action == action] for action in _ACTIONS}
        content = case.snapshot.content
        assert content is not None
        self.vectors = content.vectors
        self.allowed = [product for product in case.products if self.is_allowed(product)]
        by_text = case.path == "search" or case.made.fallback_method == CONTENT
        standing = [p for p in self.allowed if not by_text or content.covered[p.item]]
        self.nothing = by_text and not standing
        self.scores = {p.item: float(case.scores[p.item]) for p in standing}
        by_score = sorted(standing, key=lambda p: (-self.scores[p.item], p.item))
        place = {p.item: at - self.moves(p) for at, p in enumerate(by_score)}
        # Of those that come to one place the first is who was ahead before.
        self.order = sorted(by_score, key=lambda p: place[p.item])
        ladder = [self.scores[p.item] for p in by_score]
        self.worth = {item: worth_of(ladder, at) for item, at in place.items()}
        self.pool: list[Product] = []
        for product in self.order:
            if len(self.pool) < 50 and product.family not in {p.family for p in self.pool}:
                self.pool.append(product)
        self.places: list[Product | None] = [None] * case.wanted.topk

    @property
    def here(self) -> list[Product]:
        return [p for p in self.places if p is not None]

    def is_allowed(self, product: Product) -> bool:
        case = self.case
        return (
            product.available
            and bool(case.wanted.allowed[product.item])
            and product.item not in case.wanted.excluded
            and product.family not in {case.products[item].family for item in case.barred}
            and not any(means(rule, product) for rule in self.of["hide"])
        )

    def offered(self, rule: Rule) -> int:
        """How many products of the rule the shop has to offer to anybody."""
        return sum(
            product.available
            and means(rule, product)
            and not any(means(other, product) for other in self.of["hide"])
            for product in self.case.products
        )

    def moves(self, product: Product) -> float:
        """So many places upwards, and past who stands there."""
        strength = sum(r.strength for r in self.of["boost"] if means(r, product))
        strength -= sum(r.strength for r in self.of["bury"] if means(r, product))
        return 50 * strength + 0.5 * ((strength > 0) - (strength < 0))

    def pin(self) -> None:
        for rule in sorted(self.of["pin"], key=lambda r: r.position or 0):
            at, ids = (rule.position or 1) - 1, rule.products.ids
            pinned = [p for p in self.allowed if means(rule, p)]
            pinned.sort(key=lambda p: ids.index(f"p{p.item:02}") if ids else p.item)
            for product in pinned:
                if product in self.places:
                    continue
                free = [n for n, taken in enumerate(self.places) if n >= at and taken is None]
                if free:
                    at = free[0]
                    self.places[at] = product

    def breaks_nothing(self, product: Product) -> bool:
        here, spread = self.here, self.placement.spread
        if product in here or product.family in {p.family for p in here}:
            return False
        brands = sum(p.brand == product.brand != "" for p in here)
        categories = sum(p.category == product.category != "" for p in here)
        if spread.brand and brands >= spread.brand:
            return False
        if spread.category and categories >= spread.category:
            return False
        return not any(
            means(rule, product) and sum(means(rule, p) for p in here) >= (rule.at_most or 0)
            for rule in self.of["limit"]
        )

    def best(self, candidates: list[Product]) -> Product | None:
        fitting = [p for p in candidates if self.breaks_nothing(p)]
        diverse = [p for p in fitting if p in self.pool] if self.placement.spread.diversity else []
        if not diverse:
            return fitting[0] if fitting else None
        return max(diverse, key=self.value)

    def value(self, product: Product) -> float:
        weight = self.placement.spread.diversity
        low, high = (self.worth[self.pool[end].item] for end in (-1, 0))
        normal = (self.worth[product.item] - low) / (high - low) if high > low else 0.0
        vector = self.vectors[product.item]
        like = max([0.0, *(float(vector @ self.vectors[p.item]) for p in self.here)])
        return (1 - weight) * normal - weight * like

    def made(self) -> list[int]:
        if self.nothing:
            return []
        self.pin()
        for at, taken in enumerate(self.places):
            if taken is not None:
                continue
            due = {
                rule.name: min(rule.at_least or 0, self.offered(rule))
                - sum(means(rule, p) for p in self.here)
                for rule in self.of["quota"]
            }
            owed = [rule for rule in self.of["quota"] if due[rule.name] > 0]
            found = None
            if len(self.places) - len(self.here) <= sum(due[rule.name] for rule in owed):
                serving = [p for p in self.order if any(means(rule, p) for rule in owed)]
                found = self.best(serving)
            self.places[at] = found or self.best(self.order)
            if self.places[at] is None:
                break
        return [p.item for p in self.here]


def check(case: Case) -> None:
    """Raises `AssertionError` if the list is another one than the page says."""
    found, wanted = case.made.ranked.items, Reference(case).made()
    rules = [rule.model_dump(exclude_defaults=True) for rule in case.rules]
    said = f"{case.path}: {found}, not {wanted}; {case.placement}, {rules}, {case.wanted.topk}"
    scores = [float(case.scores[item]) for item in found]
    assert np.allclose(case.made.ranked.scores, scores, rtol=1e-5, atol=1e-6), said
    if case.wanted.steering is None or case.path == "popular":
        # Which of equal ones comes first is nobody's wish.
        assert scores == [float(case.scores[item]) for item in wanted], said
    else:
        assert found == wanted, said
