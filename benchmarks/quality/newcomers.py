"""Claim: of what was launched in the last 30 days, lists find at least twice what popularity finds.

    python -m benchmarks.quality.newcomers --reviews ../shared/data/hasaki

Launches are products whose first purchase lies in a window of 30 days; 36 windows end with the
data. At the start of each a hybrid with the configured parameters, without any tuning, is fitted on
what happened before, over the products that were bought before. It does not know the launches: they
stand in the catalogue as the service places them (`recsys.models.newcomers`): by text, family and
price (Hasaki has neither brands nor categories), and by what they sold until the last midnight, as
a nightly refresh writes it (`recsys.data.sales`). A customer with a history is asked once a
window, when they first buy a launch, with all that they did until then; the answers are what they
bought of the launches at that moment, recall@10 in the whole shop, and among the launches alone.

All references know more than the service: they count each sale up to the moment of the question,
those of the launches too; popularity all alike, recent popularity with a half-life of 30 days, that
of a week with 7. "Sales unread" is the service without what launches sold. Among launches ties of
popularity are broken at random, else they count against it. The last lines ask everybody who bought
anything, with and without launches in the lists. What was launched and never sold is in no window:
Hasaki does not tell when that was.
"""

import argparse
import dataclasses
import functools
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import numpy as np

from recsys import schema
from recsys.arrays import BoolArray, Float32Array, Float64Array, Int64Array
from recsys.content.job import build_embeddings
from recsys.data.keys import microseconds
from recsys.data.sales import recent_sales
from recsys.data.versions import current_version
from recsys.errors import InputError
from recsys.evaluation.leave_one_out import (
    COLUMNS,
    LeaveOneOut,
    questions_to,
    read_leave_one_out,
)
from recsys.evaluation.metrics import RESAMPLES, resampled_means
from recsys.evaluation.ranking import HeldOut, Scorer, rank_targets, user_of_target
from recsys.models.base import Histories
from recsys.models.histories import keep_entries, user_rows
from recsys.models.hybrid import Hybrid
from recsys.models.kinds import had
from recsys.models.newcomers import Newcomers, Traits, find_newcomers, trend_of
from recsys.models.popularity import RecentPopularity
from recsys.refresh.job import run_refresh
from recsys.schedule import DataInterval
from recsys.settings import Settings
from recsys.training.config import TrainingConfig
from recsys.training.subject import content_vectors, product_traits

LEAST_RATIO = 2.0
REFERENCE = "recent popularity"
WINDOWS, DAYS = 36, 30
LENGTHS = (1, 3, 10)
_DAY = 86_400
_ZONE_SECONDS = 7 * 3_600  # the shop's midnight
_NEVER = np.iinfo(np.int64).max

Figures = defaultdict[tuple[str, str, int], list[Float64Array]]


Sales = Callable[[int], Float64Array]
"""``(items,)`` what a refresh counts of all that was sold before a moment."""


class Placed(NamedTuple):
    """What the service scores with: a model, and the launches beside what it knows; of their own
    sales those before the last midnight, nothing without `sales`."""

    model: Scorer
    newcomers: Newcomers
    sales: Sales | None = None

    def score(self, histories: Histories, now: int | Int64Array) -> Float32Array:
        scores = self.model.score(self.newcomers.as_known(histories), now)
        if self.sales is None:
            return self.newcomers.place(scores)
        nights = (np.asarray(now) + _ZONE_SECONDS) // _DAY * _DAY - _ZONE_SECONDS
        placed = []
        for row, night in enumerate(nights.tolist()):
            trend = trend_of(self.sales(night), self.newcomers.known)
            newcomers = dataclasses.replace(self.newcomers, trend=trend)
            placed.append(newcomers.place(scores[row : row + 1]))
        return np.concatenate(placed)


class Among(NamedTuple):
    """`scorer`, with nothing but the columns from `first` on as candidates."""

    scorer: Scorer
    first: int
    last: int
    noise: float = 0.0

    def score(self, histories: Histories, now: int | Int64Array) -> Float32Array:
        scores = self.scorer.score(histories, now).copy()
        scores += self.noise * np.random.default_rng(0).random(scores.shape, dtype=np.float32)
        scores[:, : self.first] = scores[:, self.last :] = -np.inf
        return scores


def main() -> None:
    options = _parse()
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(Path(folder))
        data, traits, sales = _prepare(settings, options.reviews)
        figures: Figures = defaultdict(list)
        launches = [_window(data, traits, sales, back, figures) for back in range(WINDOWS, 0, -1)]
    asked = len(np.concatenate(figures["shop", "placed", 10]))
    print(f"{sum(launches)} launches in {WINDOWS} windows, {asked} questions about them")
    for place, name, length in figures:
        values = np.concatenate(figures[place, name, length])
        low, high = np.quantile(resampled_means(values[:, None])[:, 0], [0.025, 0.975])
        print(
            f"{place:<10}{name:<22}recall@{length:<4}{values.mean():.4f} [{low:.4f}-{high:.4f}]"
            f" of {len(values)}"
        )
    pair = [np.concatenate(figures["shop", name, 10]) for name in ("placed", REFERENCE)]
    drawn = np.random.default_rng(0).integers(asked, size=(RESAMPLES, asked))
    ours, theirs = (each[drawn].mean(axis=1) for each in pair)
    low, high = np.quantile(ours / np.maximum(theirs, 1e-9), [0.025, 0.975])
    ratio = pair[0].mean() / pair[1].mean()
    print(f"\nagainst {REFERENCE}: {ratio:.2f} [{low:.2f}-{high:.2f}] times (aim: {LEAST_RATIO})")
    sys.exit(0 if ratio >= LEAST_RATIO else 1)


def _prepare(settings: Settings, reviews: Path) -> tuple[LeaveOneOut, Traits, Sales]:
    raw = settings.raw / "hasaki"
    raw.parent.mkdir(parents=True)
    raw.symlink_to(reviews.resolve())
    (settings.home / "data" / "source.json").write_text('{"source": "hasaki"}')
    now = datetime.now(UTC)
    rows = run_refresh(settings, DataInterval(now - timedelta(days=1), now))["rows"]
    build_embeddings(settings)
    version = current_version(settings)
    data = read_leave_one_out(version)
    print(
        f"input: Hasaki, {rows['accepted']} interactions of {len(data.user_ids)} customers with "
        f"{len(data.item_ids)} products"
    )
    interactions = version.interactions(COLUMNS)
    times = microseconds(interactions[schema.TIMESTAMP]) // 1_000_000

    @functools.cache
    def sales(before: int) -> Float64Array:
        return recent_sales(data.item_ids, interactions[times < before], None)

    return data, product_traits(version, data, content_vectors(settings, data.item_ids)), sales


def _window(data: LeaveOneOut, traits: Traits, sales: Sales, back: int, figures: Figures) -> int:
    """Ask the questions of the window that begins `back` times 30 days before the end. Returns how
    many products were launched in it."""
    done = data.numbered.histories
    start = data.numbered.end // 1_000_000 + 1 - back * DAYS * _DAY
    first = np.full(len(data.item_ids), _NEVER)
    np.minimum.at(first, done.items, done.times)
    known, new = (
        np.flatnonzero(first < start),
        np.flatnonzero((first >= start) & (first < start + DAYS * _DAY)),
    )
    if not len(new):
        return 0
    columns = np.concatenate([known, new])
    done, traits = _columns(done, traits, columns)
    before = keep_entries(done, (done.times < start) & (done.items < len(known)))
    newcomers = find_newcomers(traits, np.bincount(before.items, minlength=len(known)))
    assert newcomers is not None
    model = Hybrid.create(TrainingConfig.ENTRIES["parameters"]["hybrid"])
    model.use_content(traits.vectors[: len(known)]).fit(before, len(known))  # type: ignore[index]
    placed, items = Placed(model, newcomers, lambda before: sales(before)[columns]), len(columns)
    unread = Placed(model, newcomers)
    recent = RecentPopularity().fit(done, items)
    week = RecentPopularity.create({"half_life_days": 7}).fit(done, items)
    always = RecentPopularity.create({"half_life_days": 36_500}).fit(done, items)
    inside = (done.times >= start) & (done.times < start + DAYS * _DAY) & (done.confidence > 0)
    questions = _asked(done, inside & (done.items >= len(known)))
    if questions is not None:
        for name, scorer in (
            ("placed", placed),
            ("placed, sales unread", unread),
            ("popularity", always),
            (REFERENCE, recent),
            ("popularity of a week", week),
        ):
            _note(figures, "shop", name, scorer, questions, (10,))
            noise = 0.0 if isinstance(scorer, Placed) else 1e-6
            among = Among(scorer, len(known), items, noise)
            _note(figures, "launches", name, among, questions, LENGTHS)
    everybody = _asked(done, inside)
    if everybody is not None:
        _note(figures, "all sales", "placed", placed, everybody, (10,))
        _note(figures, "all sales", "placed, sales unread", unread, everybody, (10,))
        _note(
            figures, "all sales", "without launches", Among(placed, 0, len(known)), everybody, (10,)
        )
    return len(new)


def _columns(done: Histories, traits: Traits, chosen: Int64Array) -> tuple[Histories, Traits]:
    """With `chosen` as the products, in that order, and nothing of others."""
    number = np.full(len(traits.families), -1, dtype=np.int32)
    number[chosen] = np.arange(len(chosen), dtype=np.int32)
    kept = keep_entries(done, (number[done.items] >= 0) & had(done))
    arrays = [None if each is None else each[chosen] for each in traits]
    return dataclasses.replace(kept, items=number[kept.items]), Traits(*arrays)


def _asked(done: Histories, chosen: BoolArray) -> HeldOut | None:
    """Questions to those with a history, when they first did one of the entries `chosen`."""
    rows = user_rows(done)
    when = np.full(done.users, _NEVER)
    np.minimum.at(when, rows[chosen], done.times[chosen])
    past = keep_entries(done, (done.times < when[rows]) & (when[rows] < _NEVER))
    questions = questions_to(past, keep_entries(done, chosen & (done.times == when[rows])))
    return questions if questions.users else None


def _note(
    figures: Figures,
    place: str,
    name: str,
    scorer: Scorer,
    questions: HeldOut,
    lengths: tuple[int, ...],
) -> None:
    ranks, sizes = rank_targets(scorer, questions).ranks, np.diff(questions.indptr)
    users = user_of_target(questions)
    for length in lengths:
        hits = np.bincount(users, weights=ranks <= length, minlength=questions.users)
        figures[place, name, length].append(hits / sizes)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--reviews", type=Path, required=True, help="folder of the two csv files")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        main()
    except (InputError, OSError) as error:
        sys.exit(f"error: {error}")
