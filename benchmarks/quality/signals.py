"""What purchases, carts, clicks and views add to ratings, in a shop of which the truth is known.

    python -m benchmarks.quality.signals

Customers have one or two tastes, look at products of these and at popular ones, click, put into the
cart and buy the more often the better it fits, and rate some of what they bought. The last purchase
of each is the question; the reference of the same run is the same family with the same parameters,
fitted on the ratings alone and asked the same questions. The ratio is to be 1.10 or more. A last
table says what a search for the weight of clicks is worth when there are few of them.
"""

import argparse
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from recsys import schema
from recsys.config import load_config
from recsys.data.versions import current_version
from recsys.evaluation.leave_one_out import LeaveOneOut, read_leave_one_out
from recsys.evaluation.metrics import evaluate
from recsys.evaluation.ranking import HeldOut
from recsys.models.base import Histories
from recsys.models.histories import take_users, user_rows
from recsys.models.kinds import RATING, SIGNAL_WEIGHTS, weight_of_codes
from recsys.models.model_types import create_model
from recsys.schema import Kind
from recsys.settings import Settings
from recsys.training import signals
from recsys.training.config import TrainingConfig
from recsys.training.signals import choose_weights
from tests.models.shop import publish_shop

LEAST_RATIO = 1.10
MODEL_TYPES = ("item_knn", "als", "recent_popularity", "hybrid")
TASTES, DAYS, LOOKS = 24, 360, 30
START = 1_700_000_000
FEW = (100, 300, 1000, 3000)
_DAY = 86_400


def main() -> None:
    options = _parse()
    events = simulate(options.users, options.products, options.seed)
    counts = events["kind"].value_counts()
    print("events:", ", ".join(f"{counts[kind]} {kind}s" for kind in Kind if kind in counts))
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(Path(folder))
        data = publish(settings, events, options.products, "v1")
        config = load_config(settings, TrainingConfig)
        chosen = choose_weights(settings, config, "v1", data)
        data = data.weighed(weight_of_codes(chosen.weights))
        weights = ", ".join(f"{kind} {weight:g}" for kind, weight in chosen.weights.items())
        print(f"weights found in {chosen.trials} trials: {weights}")
        ratio = _compare(data, options.seed)
        if not options.no_few:
            _few(settings, events, options)
    print(f"\nbest family, with signals against ratings alone: {ratio:.2f} (aim {LEAST_RATIO:.2f})")
    sys.exit(0 if ratio >= LEAST_RATIO else 1)


def simulate(users: int, products: int, seed: int) -> pd.DataFrame:
    """Events (user, item, kind, time, rating), oldest first."""
    random = np.random.default_rng(seed)
    taste_of = np.arange(products) % TASTES
    appeal = random.pareto(1.5, products) + 0.2
    likes = random.integers(0, TASTES, (users, 2))
    looks = random.poisson(LOOKS, users)
    user = np.repeat(np.arange(users), looks)
    # Two of three looks are at something that fits.
    fits = random.random(len(user)) < 2 / 3
    taste = np.where(
        fits,
        likes[user, random.integers(0, 2, len(user))],
        random.integers(0, TASTES, len(user)),
    )
    item = np.empty(len(user), dtype=np.int64)
    for one in range(TASTES):
        members, asked = np.flatnonzero(taste_of == one), np.flatnonzero(taste == one)
        odds = appeal[members] / appeal[members].sum()
        item[asked] = random.choice(members, len(asked), p=odds)
    fits = (taste_of[item] == likes[user, 0]) | (taste_of[item] == likes[user, 1])
    time = START + random.integers(0, DAYS * _DAY, len(user))
    clicked = random.random(len(user)) < np.where(fits, 0.4, 0.1)
    in_cart = clicked & (random.random(len(user)) < np.where(fits, 0.5, 0.15))
    bought = in_cart & (random.random(len(user)) < 0.6)
    rated = bought & (random.random(len(user)) < 0.3)
    stars = np.where(fits, 4, 3) + random.integers(0, 2, len(user))
    parts = [
        (Kind.VIEW, np.ones(len(user), dtype=bool), 0),
        (Kind.CLICK, clicked, 20),
        (Kind.CART, in_cart, 60),
        (Kind.PURCHASE, bought, 600),
        (Kind.RATING, rated, 9 * _DAY),
    ]
    frames = [
        pd.DataFrame(
            {"user": user[did], "item": item[did], "kind": str(kind), "time": time[did] + later}
        ).assign(rating=stars[did].astype(float))
        for kind, did, later in parts
    ]
    events = pd.concat(frames, ignore_index=True).sort_values(["user", "time"], kind="stable")
    # Nobody buys a product twice here, or rates it twice.
    once = events["kind"].isin([Kind.PURCHASE, Kind.RATING])
    again = events[once].duplicated(["user", "item", "kind"])
    return events.drop(again[again].index).reset_index(drop=True)


def publish(settings: Settings, events: pd.DataFrame, products: int, version: str) -> LeaveOneOut:
    """The protocol on a version of `events`: the last purchase is the test, the one before it the
    validation, and what came later, or is of one of these products, is on no side."""
    bought = events[events["kind"] == Kind.PURCHASE]
    back = bought.groupby("user").cumcount(ascending=False)
    several = bought["user"].map(bought["user"].value_counts()) >= 3
    split = pd.Series(schema.TRAIN, index=events.index)
    test, validation = (bought[several & (back == at)] for at in (0, 1))
    for held in (validation, test):
        since = events["user"].map(held.set_index("user")["time"])
        split[events["time"] >= since] = schema.EXCLUDED
        pairs = pd.MultiIndex.from_frame(held[["user", "item"]])
        split[pd.MultiIndex.from_frame(events[["user", "item"]]).isin(pairs)] = schema.EXCLUDED
    split[validation.index], split[test.index] = schema.VALIDATION, schema.TEST
    events = events.assign(split=split)
    is_rating = events["kind"] == Kind.RATING
    rated, others = events[is_rating], events[~is_rating]
    publish_shop(settings, rated, version_id=version, items=products, signals=others)
    return read_leave_one_out(current_version(settings))


def _ratings_alone(data: LeaveOneOut) -> tuple[Histories, HeldOut]:
    """What is fitted on before the test, and its questions to the same users for the same products,
    as if nobody had sent anything but ratings."""
    numbered, known = data.numbered, data.in_training | data.in_validation
    tested = np.isin(np.arange(len(data.user_ids)), user_rows(numbered.histories)[data.in_test])
    users = np.flatnonzero(tested & (np.diff(numbered.part(known).indptr) > 0))
    ratings = known & (numbered.histories.kinds == RATING)
    asked = take_users(numbered.part(ratings), users)
    return numbered.part(ratings & numbered.learnt), replace(data.test, histories=asked)


def _compare(data: LeaveOneOut, seed: int) -> float:
    """Prints both of each family; the ratio of the recalls of the families that are best."""
    alone = _ratings_alone(data)
    print(f"{data.test.users} questions; recall@10 / NDCG@10 [interval of the recall]")
    print(f"{'':<20}{'ratings alone':<36}{'with signals':<36}ratio")
    best = [0.0, 0.0]
    for model_type in MODEL_TYPES:
        figures = [
            evaluate(create_model(model_type, {}, seed).fit(known, len(data.item_ids)), questions)
            for known, questions in (alone, (data.training_and_validation, data.test))
        ]
        recalls = [one["recall_at_10"] for one in figures]
        best = [max(pair) for pair in zip(best, recalls, strict=True)]
        cells = "".join(f"{_cell(one):<36}" for one in figures)
        print(f"{model_type:<20}{cells}{recalls[1] / max(recalls[0], 1e-9):.2f}", flush=True)
    return best[1] / max(best[0], 1e-9)


def _few(settings: Settings, events: pd.DataFrame, options: argparse.Namespace) -> None:
    """The recall on test with the weight of clicks that a search finds in few of them, beside that
    with the configured one."""
    config = load_config(settings, TrainingConfig)
    others = events[events["kind"].isin([Kind.PURCHASE, Kind.RATING])]
    clicks = events[events["kind"] == Kind.CLICK]
    print(
        "\nclicks in the shop: weight found, and item_knn's recall@10 with it against the usual one"
    )
    for few in FEW:
        cells = []
        for seed in range(options.seeds):
            part = pd.concat([others, clicks.sample(few, random_state=seed)]).sort_index()
            version = f"few{few}_{seed}"
            data = publish(settings, part, options.products, version)
            usual, found = SIGNAL_WEIGHTS, _found(settings, config, version, data)
            recalls = []
            for weights in (usual, found):
                side = data.weighed(weight_of_codes(weights))
                model = create_model("item_knn", {}, 0)
                model.fit(side.training_and_validation, options.products)
                recalls.append(evaluate(model, side.test)["recall_at_10"])
            cells.append(f"{found['click']:.2f} {recalls[1] - recalls[0]:+.4f}")
        print(f"{few:>6}   " + "   ".join(cells), flush=True)


def _found(
    settings: Settings, config: TrainingConfig, version: str, data: LeaveOneOut
) -> dict[str, float]:
    """What the search finds for clicks, however few there are."""
    least, signals.LEAST_EVENTS = signals.LEAST_EVENTS, 1
    try:
        weights = choose_weights(settings, config, version, data).weights
    finally:
        signals.LEAST_EVENTS = least
    return {**SIGNAL_WEIGHTS, "click": weights["click"]}


def _cell(metrics: dict[str, float]) -> str:
    low, high = metrics["recall_at_10_low"], metrics["recall_at_10_high"]
    return f"{metrics['recall_at_10']:.4f} / {metrics['ndcg_at_10']:.4f} [{low:.3f}-{high:.3f}]"


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--users", type=int, default=4000)
    parser.add_argument("--products", type=int, default=800)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=3, help="samples of few clicks")
    parser.add_argument("--no-few", action="store_true", help="leave out the last table")
    return parser.parse_args()


if __name__ == "__main__":
    main()
