"""How much ALS from Spark and ALS from `implicit` agree on the real shop.

    python -m benchmarks.scale.agreement --reviews ../shared/data/hasaki [--starts 4]

Both are fitted on training and validation with the configured parameters and asked for the test
events. Prints recall@10 and NDCG@10 with the 95 % interval over users, and the products that two
models' top 10 lists have in common, beside what two runs of `implicit` that differ by their seed
have in common.
"""

import argparse
import json
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from recsys.arrays import Int32Array
from recsys.config import load_config
from recsys.data.config import Engine
from recsys.data.versions import current_version
from recsys.evaluation.leave_one_out import LeaveOneOut, read_leave_one_out
from recsys.evaluation.metrics import metrics_per_user, summarise
from recsys.evaluation.ranking import rank_targets
from recsys.models.als import Als, Trainer
from recsys.models.histories import take_users
from recsys.refresh.job import run_refresh
from recsys.schedule import DataInterval
from recsys.settings import Settings
from recsys.spark.als import als_trainer
from recsys.training.config import TrainingConfig


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reviews", type=Path, required=True)
    parser.add_argument("--starts", type=int, default=4)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(Path(folder))
        data = prepare(settings, options.reviews)
        parameters = load_config(settings, TrainingConfig).parameters["als"] | {
            "starts": options.starts
        }
        print(
            f"parameters {parameters}; {data.test.users} test users, {len(data.item_ids)} products"
        )
        lists = {}
        with als_trainer(Engine.SPARK, settings) as spark:
            for name, trainer, seed in (
                ("implicit", None, 0),
                ("implicit, other seed", None, 1_000),
                ("spark", spark, 0),
            ):
                lists[name] = judge(name, fit(parameters, trainer, seed, data), data)
        for name in ("implicit, other seed", "spark"):
            print(
                f"top 10 in common with implicit: {name}: {overlap(lists[name], lists['implicit'])}"
            )


def prepare(settings: Settings, reviews: Path) -> LeaveOneOut:
    settings.raw.mkdir(parents=True)
    (settings.raw / "hasaki").symlink_to(reviews.resolve())
    (settings.home / "data" / "source.json").write_text(json.dumps({"source": "hasaki"}))
    now = datetime.now(UTC)
    run_refresh(settings, DataInterval(now - timedelta(days=1), now))
    return read_leave_one_out(current_version(settings))


def fit(parameters: dict[str, float], trainer: Trainer | None, seed: int, data: LeaveOneOut) -> Als:
    model = Als.create(parameters, seed).trained_by(trainer)
    started = time.perf_counter()
    model.fit(data.training_and_validation, len(data.item_ids))
    print(f"fitted in {time.perf_counter() - started:.1f} s: ", end="")
    return model


def judge(name: str, model: Als, data: LeaveOneOut) -> Int32Array:
    """Print the metrics; ``(users, 10)`` products for the users of the test."""
    found = summarise(metrics_per_user(rank_targets(model, data.test)))
    shown = ", ".join(
        f"{metric} {found[metric]:.4f} [{found[metric + '_low']:.4f}, "
        f"{found[metric + '_high']:.4f}]"
        for metric in ("recall_at_10", "ndcg_at_10")
    )
    print(f"{name}: {shown}", flush=True)
    asked = take_users(data.test.histories, np.arange(data.test.users))
    scores = model.score(asked, 0)
    top: Int32Array = np.argsort(-scores, axis=1)[:, :10].astype(np.int32)
    return top


def overlap(one: Int32Array, other: Int32Array) -> str:
    shared = [len(set(first) & set(second)) for first, second in zip(one, other, strict=True)]
    return f"{np.mean(shared):.2f} of 10"


if __name__ == "__main__":
    main()
