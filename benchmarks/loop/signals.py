"""Does the loop close? What customers do with lists makes the next lists better.

    python -m benchmarks.loop.signals

Writes the sample shop and two months of simulated traffic, refreshes and trains as the jobs do, and
asks for purchases that were held out: of customers who have rated something before, so that ratings
alone have something to go by. The reference of the same run is the same family, tuned and fitted on
the ratings alone of the same shop, asked the same questions. Limit: recall@10 of the best family
with signals at least 1.10 times that of the best with ratings alone.

It is a check that signals reach the models on their whole way, and no claim about real shops: the
customers are simulated, and their tastes are what a model can learn.
"""

import argparse
import sys
import tempfile
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import yaml

from recsys.config import load_config
from recsys.data.sample import write_sample_shop
from recsys.data.versions import PublishedVersion, current_version
from recsys.evaluation.leave_one_out import LeaveOneOut, questions_to, read_leave_one_out
from recsys.evaluation.report import evaluate
from recsys.models.histories import user_rows
from recsys.models.kinds import CODE_OF, weight_of_codes
from recsys.refresh.job import run_refresh
from recsys.registry import Registry
from recsys.schedule import DataInterval
from recsys.schema import Kind
from recsys.settings import Settings
from recsys.simulation.job import simulate_days
from recsys.simulation.shop import shop_of_sample
from recsys.training.config import TrainingConfig
from recsys.training.job import train_model
from recsys.training.tuning import Subject, choose_parameters

MODEL_TYPES = ("item_knn", "als")
LIMIT = 1.10
SIGNALS = [kind for kind in Kind if kind is not Kind.RATING]


def main() -> None:
    options = _parse()
    with tempfile.TemporaryDirectory() as folder:
        settings, other = Settings(Path(folder) / "shop"), Settings(Path(folder) / "alone")
        version = _shop(settings, options)
        for one in (settings, other):
            _set_budget(one, options.seconds)
        best = [0.0, 0.0]
        print(
            f"{'recall@10 of purchases':<24}{'ratings alone':>14}{'with signals':>14}{'ratio':>8}"
        )
        for model_type in MODEL_TYPES:
            recalls = _compare(settings, other, version, model_type)
            best = [max(pair) for pair in zip(best, recalls, strict=True)]
            ratio = recalls[1] / max(recalls[0], 1e-9)
            print(
                f"{model_type:<24}{recalls[0]:>14.4f}{recalls[1]:>14.4f}{ratio:>8.2f}", flush=True
            )
    ratio = best[1] / max(best[0], 1e-9)
    print(f"best with signals / best with ratings alone: {ratio:.2f} (limit {LIMIT:g})")
    if ratio < LIMIT:
        sys.exit("the loop does not close")


def _shop(settings: Settings, options: argparse.Namespace) -> PublishedVersion:
    write_sample_shop(settings)
    shop = shop_of_sample(settings)
    done = simulate_days(
        *(settings, shop, options.days, options.lists_per_day), seed=options.seed, ratings=False
    )
    now = datetime.now(UTC)
    run_refresh(settings, DataInterval(now - timedelta(days=1), now))
    version = current_version(settings)
    events = read_leave_one_out(version).events
    kinds = ", ".join(f"{events[kind]:,} {kind}" for kind in events)
    print(f"input: {done['lists']:,} lists, {done['events']:,} events; in training {kinds}")
    return version


def _compare(
    settings: Settings, other: Settings, version: PublishedVersion, model_type: str
) -> list[float]:
    """The recall with ratings alone, and with signals as the product trains with them."""
    config = load_config(settings, TrainingConfig)
    summary = train_model(settings, model_type, version.version_id)
    weights = summary["signals"]["weights"]
    data = read_leave_one_out(version).weighed(weight_of_codes(weights))

    known = data.without(SIGNALS)
    alone = Subject(*known, len(data.item_ids), config.seed)
    found = choose_parameters(other, config, version.version_id, model_type, alone)
    judged = _purchases(data)
    training, questions = judged.without(SIGNALS)
    model = alone.fit(model_type, found.parameters, training)
    reference = evaluate(model, questions)["recall_at_10"]

    training, questions = judged.without([])
    subject = Subject(training, questions, len(data.item_ids), config.seed)
    tuned = Registry(settings).get(summary["model_id"]).hyperparameters
    model = subject.fit(model_type, tuned)
    return [reference, evaluate(model, questions)["recall_at_10"]]


def _purchases(data: LeaveOneOut) -> LeaveOneOut:
    """All before the test as training, and as questions the purchases of the test by customers who
    had rated something."""
    numbered, before = data.numbered, data.in_training | data.in_validation
    kinds, users = numbered.histories.kinds, user_rows(numbered.histories)
    ratings = np.bincount(
        users[before & (kinds == CODE_OF[Kind.RATING])], minlength=len(data.user_ids)
    )
    asked = data.in_test & (kinds == CODE_OF[Kind.PURCHASE]) & (ratings > 0)[users]
    questions = questions_to(numbered.part(before), numbered.part(asked))
    print(f"{questions.users} questions")
    return replace(data, in_training=before, in_validation=asked, validation=questions)


def _set_budget(settings: Settings, seconds: float) -> None:
    path = settings.home / "config" / "training.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump({"tuning": {"seconds": seconds}}), encoding="utf-8")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--days", type=int, default=60, help="of simulated traffic")
    parser.add_argument("--lists-per-day", type=int, default=600)
    parser.add_argument("--seconds", type=float, default=30, help="of tuning, for each family")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
