"""The work of model_training at the size of ViEcomRec: 26,000 trainable users, 2,244 products.

    python -m benchmarks.models.training_job

Writes the synthetic shop, refreshes it, then tunes (60 s a family), judges, fits and registers all
families and selects the best, each step in a process of its own as in Airflow. Limits: 30 minutes
in all, 3 GB of memory in any process. The reference of the same run is the bare time that fitting
the selected model once takes.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import yaml

from recsys.config import load_config
from recsys.data.sample import write_sample_shop
from recsys.data.versions import current_version
from recsys.evaluation.leave_one_out import read_leave_one_out
from recsys.models.model_types import MODEL_TYPES, model_class
from recsys.refresh.job import run_refresh
from recsys.registry import Registry
from recsys.schedule import DataInterval
from recsys.settings import Settings
from recsys.training.config import TrainingConfig
from recsys.training.job import plan_training, select_best

LIMIT_SECONDS = 1800.0
LIMIT_BYTES = 3e9

_TRAIN = """
import json, resource, sys
from recsys.training.job import train_model
from recsys.settings import Settings
from pathlib import Path
summary = train_model(Settings(Path(sys.argv[1])), sys.argv[2], sys.argv[3])
summary["peak_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps(summary))
"""


def main() -> None:
    options = _parse()
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(Path(folder))
        write_sample_shop(
            settings, reviews=options.reviews, users=options.users, products=options.products
        )
        now = datetime.now(UTC)
        run_refresh(settings, DataInterval(now - timedelta(days=1), now))
        version = current_version(settings)
        print(
            f"input: {len(version.interactions(['user_id'])):,} interactions, "
            f"{version.matrix().shape[0]:,} trainable users, {version.matrix().shape[1]:,} "
            "products",
            flush=True,
        )
        _set_budget(settings, options.seconds)
        begun = time.monotonic()
        plan = plan_training(settings, options.model_types)
        trained = [_train(settings, **one) for one in plan]
        selection = select_best(settings, trained)
        seconds = time.monotonic() - begun
        print(f"selected {selection['model_id']}: {selection['reason']}")
        bare = _fit_once(settings, selection["model_id"])
    peak = max(one["peak_bytes"] for one in trained)
    peak = max(peak, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
    print(
        f"{len(trained)} families: {seconds:.0f} s (limit {LIMIT_SECONDS:.0f} s), "
        f"{seconds / bare:.0f} times one fit of the selected model ({bare:.2f} s); "
        f"peak memory {peak / 1e9:.2f} GB (limit {LIMIT_BYTES / 1e9:g} GB)"
    )
    if seconds > LIMIT_SECONDS or peak > LIMIT_BYTES:
        sys.exit("over the limit")


def _set_budget(settings: Settings, seconds: float) -> None:
    config = load_config(settings, TrainingConfig).model_dump(mode="json")
    config["tuning"] = {"seconds": seconds, "trials": 1000}
    own = settings.home / "config" / "training.yaml"
    own.parent.mkdir(parents=True, exist_ok=True)
    own.write_text(yaml.safe_dump(config), encoding="utf-8")


def _train(settings: Settings, model_type: str, version_id: str) -> dict[str, float]:
    begun = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", _TRAIN, str(settings.home), model_type, version_id],
        check=True,
        capture_output=True,
        text=True,
    )
    summary: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    print(
        f"{model_type}: {time.monotonic() - begun:.0f} s, recall@10 "
        f"{summary['recall_at_10']:.4f} (popularity {summary['baseline_recall_at_10']:.4f}), "
        f"{summary['peak_bytes'] / 1e9:.2f} GB",
        flush=True,
    )
    return summary


def _fit_once(settings: Settings, model_id: str) -> float:
    entry = Registry(settings).get(model_id)
    data = read_leave_one_out(current_version(settings))
    model = model_class(entry.model_type).create(entry.hyperparameters, 0)
    begun = time.monotonic()
    model.fit(data.everything, len(data.item_ids))
    return time.monotonic() - begun


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--reviews", type=int, default=369_099)
    parser.add_argument("--users", type=int, default=304_708)
    parser.add_argument("--products", type=int, default=2_244)
    parser.add_argument("--model-types", nargs="+", default=list(MODEL_TYPES))
    parser.add_argument("--seconds", type=float, default=60, help="of tuning for each family")
    return parser.parse_args()


if __name__ == "__main__":
    main()
