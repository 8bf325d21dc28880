"""What completes a cart: `bought_together` against "similar", on baskets that nobody has seen.

    python -m benchmarks.quality.together --hasaki ../shared/data/hasaki

Of baskets with products of two families and more each family in turn is asked for by the others, in
folds over customers: nothing of the asked ones is learned from. Answers are families of products;
those in the cart are none. The reference of the same run is what `/similar_items` knows: how like
each product is to those in the cart, by each family of models with its usual parameters, and what
sells. Intervals (95 %) and differences treat the customer as the unit.

Two shops: the sample shop with simulated traffic, of which the truth is known (each product goes
with one of each other step of its routine), and Hasaki's reviews of one day, where they are.
Limit: recall@10 of `bought_together` above that of every "similar", with the interval of the
difference above zero.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from recsys.arrays import Float32Array, Float64Array, Int32Array, Int64Array
from recsys.content.job import build_embeddings
from recsys.data.sample import write_sample_shop
from recsys.data.versions import current_version
from recsys.evaluation.leave_one_out import LeaveOneOut, read_leave_one_out
from recsys.evaluation.metrics import resampled_means
from recsys.models.base import Histories
from recsys.models.complements import BASKET_SECONDS, LARGEST_BASKET, learn_complements
from recsys.models.histories import acquired, keep_entries, take_users, user_rows
from recsys.models.hybrid import Hybrid
from recsys.models.model_types import create_model
from recsys.models.popularity import Popularity
from recsys.refresh.job import run_refresh
from recsys.schedule import DataInterval
from recsys.settings import Settings
from recsys.simulation.job import BASKETS, simulate_days
from recsys.simulation.shop import shop_of_sample
from recsys.training.job import categories_of
from recsys.training.subject import content_vectors

SIMILAR = ("item_knn", "als", "hybrid")
FOLDS, AT = 5, (5, 10)
TOGETHER, POPULAR = "bought_together", "popularity"

Scorer = Callable[[Int32Array], Float32Array]
"""``(items,)`` scores beside a cart of these columns."""


@dataclass(frozen=True)
class Shop:
    """What is learned from, and what is known of products."""

    data: LeaveOneOut
    categories: Int32Array
    texts: Float32Array | None


@dataclass(frozen=True)
class Baskets:
    """Baskets with several families; basket b has ``families[starts[b]:starts[b + 1]]``, and the
    column that each was bought as."""

    users: Int64Array
    starts: Int64Array
    families: Int64Array
    items: Int32Array


def main() -> None:
    options = _parse()
    worst = np.inf
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(Path(folder) / "sample")
        worst = min(worst, _report("sample shop, simulated", _sample(settings, options)))
        if options.hasaki and options.hasaki.exists():
            settings = Settings(Path(folder) / "hasaki")
            worst = min(worst, _report("Hasaki, same day", _hasaki(settings, options.hasaki)))
        else:
            print("Hasaki is left out: it is not there")
    if worst <= 0:
        sys.exit("bought_together is not clearly better than similar")


def _report(name: str, shop: Shop) -> float:
    """Prints the figures; the lower end of the least difference to "similar"."""
    baskets = baskets_of(shop.data.numbered.histories, shop.data.families)
    asked = len(baskets.families)
    users = len(np.unique(baskets.users))
    print(f"\n{name}: {len(baskets.users)} baskets of {users} customers, {asked} questions")
    found = judged(shop, baskets)
    print(f"{'':<18}" + "".join(f"{f'recall@{at}':<26}" for at in AT) + f"{TOGETHER} - it")
    least = np.inf
    for one, recalls in found.items():
        cells = "".join(f"{_interval(recalls[:, place]):<26}" for place in range(len(AT)))
        difference = found[TOGETHER][:, -1] - recalls[:, -1]
        print(f"{one:<18}{cells}{_interval(difference)}", flush=True)
        if one in SIMILAR:
            least = min(least, _ends(difference)[0])
    return least


def judged(shop: Shop, baskets: Baskets) -> dict[str, Float64Array]:
    """``(customers, len(AT))`` mean recalls of each customer's baskets, by what was asked."""
    data, folds = shop.data, np.random.default_rng(0).integers(FOLDS, size=len(shop.data.user_ids))
    found: dict[str, list[Float64Array]] = {}
    whose: list[Int64Array] = []
    for fold in range(FOLDS):
        asked = np.flatnonzero(folds[baskets.users] == fold)
        known = np.flatnonzero(folds != fold)
        for name, scorer in _scorers(shop, known).items():
            recalls = _recalls(scorer, baskets, asked, data.families)
            found.setdefault(name, []).append(recalls)
        whose.append(baskets.users[asked])
    _, owner = np.unique(np.concatenate(whose), return_inverse=True)
    count = np.bincount(owner)
    return {
        name: np.stack(
            [np.bincount(owner, weights=column) / count for column in np.concatenate(parts).T], 1
        )
        for name, parts in found.items()
    }


def _scorers(shop: Shop, users: Int64Array) -> dict[str, Scorer]:
    """What is asked, learned from `users` alone."""
    data, items = shop.data, len(shop.data.item_ids)
    events, learnt = take_users(data.numbered.histories, users), take_users(data.learnt, users)
    complements = learn_complements(events, data.families, shop.categories, shop.texts)
    sold = Popularity().fit(learnt, items).similar(0)
    scorers: dict[str, Scorer] = {TOGETHER: complements.scores, POPULAR: lambda cart: sold}
    for model_type in SIMILAR:
        model = create_model(model_type, {}, 0)
        if isinstance(model, Hybrid):
            model.use_content(shop.texts)
        model.fit(learnt, items)

        def like(cart: Int32Array, similar: Callable[[int], Float32Array] = model.similar):
            rows = [similar(item) for item in cart.tolist()]
            return np.sum([row / max(float(row.max()), 1e-12) for row in rows], axis=0)

        scorers[model_type] = like
    return scorers


def _recalls(
    scorer: Scorer, baskets: Baskets, asked: Int64Array, families: Int32Array
) -> Float64Array:
    """``(asked, len(AT))`` share of each basket's families that are found."""
    found = np.zeros((len(asked), len(AT)))
    for row, basket in enumerate(asked.tolist()):
        part = slice(baskets.starts[basket], baskets.starts[basket + 1])
        inside, items = baskets.families[part], baskets.items[part]
        for place, target in enumerate(inside.tolist()):
            scores = scorer(np.delete(items, place))
            best = np.full(int(families.max()) + 1, -np.inf)
            np.maximum.at(best, families, scores)
            best[np.delete(inside, place)] = -np.inf
            # What is not known to complete it is no answer, and a tie counts against it.
            rank = np.sum(best >= best[target])
            found[row] += rank <= np.array(AT)
        found[row] /= len(inside)
    return found


def baskets_of(histories: Histories, families: Int32Array) -> Baskets:
    """Those of what was bought at one time, or rated where no purchase is known."""
    got = keep_entries(histories, acquired(histories, families))
    user = user_rows(got)
    new = np.ones(len(user), dtype=np.bool_)
    new[1:] = (user[1:] != user[:-1]) | (np.diff(got.times) > BASKET_SECONDS)
    basket = np.cumsum(new) - 1
    key = basket * np.int64(int(families.max()) + 1) + families[got.items]
    _, first = np.unique(key, return_index=True)
    size = np.bincount(basket[first])
    chosen = (size[basket[first]] > 1) & (size[basket[first]] <= LARGEST_BASKET)
    first = first[chosen]
    starts = np.flatnonzero(np.diff(basket[first], prepend=-1))
    items = got.items[first]
    bounds = np.append(starts, len(first))
    return Baskets(user[first][starts], bounds, families[items].astype(np.int64), items)


def _sample(settings: Settings, options: argparse.Namespace) -> Shop:
    write_sample_shop(settings)
    shop = shop_of_sample(settings)
    days, lists = options.days, options.lists_per_day
    simulate_days(settings, shop, days, lists, seed=0, ratings=False, baskets=BASKETS)
    return _refreshed(settings)


def _hasaki(settings: Settings, reviews: Path) -> Shop:
    settings.raw.mkdir(parents=True)
    (settings.raw / "hasaki").symlink_to(reviews.resolve())
    (settings.home / "data" / "source.json").write_text('{"source": "hasaki"}')
    return _refreshed(settings)


def _refreshed(settings: Settings) -> Shop:
    now = datetime.now(UTC)
    run_refresh(settings, DataInterval(now - timedelta(days=1), now))
    build_embeddings(settings)
    version = current_version(settings)
    data = read_leave_one_out(version)
    texts = content_vectors(settings, data.item_ids)
    return Shop(data, categories_of(version), None if texts is None else texts.vectors)


def _ends(values: Float64Array) -> tuple[float, float]:
    low, high = np.quantile(resampled_means(values[:, None]), [0.025, 0.975])
    return float(low), float(high)


def _interval(values: Float64Array) -> str:
    low, high = _ends(values)
    return f"{values.mean():.4f} [{low:.4f}, {high:.4f}]"


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hasaki", type=Path, default=Path("../shared/data/hasaki"))
    parser.add_argument("--days", type=int, default=20)
    parser.add_argument("--lists-per-day", type=int, default=2000)
    return parser.parse_args()


if __name__ == "__main__":
    main()
