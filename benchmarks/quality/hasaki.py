"""The production protocol on the real shop: refresh, train every family, judge, select.

    python -m benchmarks.quality.hasaki --reviews ../shared/data/hasaki

Prints recall@10 / NDCG@10 with 95 % intervals on event-aware leave-one-out, for users of whom one
item is known, for products with fewer than five purchases, for the next purchase from another
product family (lists with one listing a family), and in rolling 90-day windows, beside both
popularity baselines measured in the same run, and the hybrid without what lifts products with few
purchases. Below, how personal the lists are.

With ``--json benchmarks/results/hasaki.json`` the figures are kept, and
``python -m benchmarks.quality.tables`` puts them on the pages; with ``--models`` only these are
trained, and the rows of the others stay.
"""

import argparse
import sys
import tempfile
import time
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from benchmarks.quality._results import provenance, read_rows, write_report
from recsys.config import load_config
from recsys.data.versions import current_version
from recsys.errors import InputError
from recsys.evaluation import PERSONAL
from recsys.evaluation.leave_one_out import read_leave_one_out
from recsys.evaluation.report import report_on
from recsys.models.model_types import MODEL_TYPES, model_class
from recsys.refresh.job import run_refresh
from recsys.registry import Registry
from recsys.schedule import DataInterval
from recsys.settings import Settings
from recsys.training.config import TrainingConfig
from recsys.training.job import select_best, train_model
from recsys.training.subject import Subject, content_vectors, product_traits

BASELINES = ("popularity", "recent_popularity")
ASKED = ("item_knn", "linear", "als", "bpr", "self_attention", "recent_popularity", "hybrid")
FAMILIES = [name for name in ASKED if name in MODEL_TYPES]


def main() -> None:
    options = _parse()
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(Path(folder))
        version_id, of_data = _prepare(settings, options)
        known = read_rows(options.json, of_data)
        report = _baselines(settings)
        summaries = []
        for model_type in options.models:
            begun = time.monotonic()
            summary = train_model(settings, model_type, version_id)
            entry = Registry(settings).get(summary["model_id"])
            summaries.append(summary)
            report[model_type] = {
                "metrics": entry.metrics,
                "comparison": entry.baseline_comparison,
                "segments": entry.training_info["segments"],
                "hyperparameters": entry.hyperparameters,
                "seconds": round(time.monotonic() - begun, 1),
            }
        if "hybrid" in options.models:
            chosen = report["hybrid"]["hyperparameters"]
            report["hybrid, no lift"] = _without_lift(settings, chosen)
        selection = select_best(settings, summaries)
        seed = load_config(settings, TrainingConfig).seed
    configuration = {name: getattr(options, name) for name in ("seconds", "trials", "embeddings")}
    made = provenance("benchmarks.quality.hasaki", configuration, [seed])
    report = known | {name: {**row, "made": made} for name, row in report.items()}
    _print(report)
    print(f"\nselected: {selection['model_id']}: {selection['reason']}")
    if options.json:
        write_report(options.json, {"data": of_data, "models": report})


def _prepare(settings: Settings, options: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    raw = settings.raw / "hasaki"
    raw.parent.mkdir(parents=True)
    raw.symlink_to(options.reviews.resolve())
    (settings.home / "data" / "source.json").write_text('{"source": "hasaki"}')
    now = datetime.now(UTC)
    rows = run_refresh(settings, DataInterval(now - timedelta(days=1), now))["rows"]
    print(
        f"input: Hasaki, {rows['read']} rows read, {rows['accepted']} accepted; "
        f"{options.seconds:.0f} s of tuning a family",
        flush=True,
    )
    if options.embeddings:
        from recsys.content.job import build_embeddings

        print("embeddings:", build_embeddings(settings), flush=True)
    config = load_config(settings, TrainingConfig).model_dump(mode="json")
    config["tuning"] = {"seconds": options.seconds, "trials": options.trials}
    own = settings.home / "config" / "training.yaml"
    own.parent.mkdir(parents=True, exist_ok=True)
    own.write_text(yaml.safe_dump(config), encoding="utf-8")
    accepted = {"name": "Hasaki", "interactions": rows["accepted"]}
    return current_version(settings).version_id, accepted


def _baselines(settings: Settings) -> dict[str, Any]:
    data = read_leave_one_out(current_version(settings))
    print(
        f"{len(data.user_ids)} users, {len(data.item_ids)} products, {data.test.users} questions, "
        f"{len(data.windows)} windows",
        flush=True,
    )
    return {
        name: asdict(
            report_on(
                lambda histories, name=name: (
                    model_class(name).create({}).fit(histories, len(data.item_ids))
                ),
                data,
            )
        )
        for name in BASELINES
    }


def _without_lift(settings: Settings, chosen: dict[str, Any]) -> dict[str, Any]:
    version, config = current_version(settings), load_config(settings, TrainingConfig)
    data = read_leave_one_out(version)
    texts = content_vectors(settings, data.item_ids)
    known = (data.training, data.validation, len(data.item_ids))
    traits = product_traits(version, data, texts)
    subject = Subject(*known, config.seed, texts, traits=traits)
    fit = partial(subject.fit, "hybrid", {**chosen, "lift": 0.0})
    print(f"lift of products with few purchases: {chosen['lift']}")
    return asdict(report_on(fit, data))


def _print(report: dict[str, Any]) -> None:
    head = (
        "model",
        "leave-one-out",
        "one known item",
        "new products",
        "another family",
        "90-day windows",
    )
    print(
        "\n" + "".join(f"{cell:<34}" if place else f"{cell:<20}" for place, cell in enumerate(head))
    )
    for name, row in report.items():
        window = row["comparison"]
        cells = [
            _cell(row["metrics"]),
            _cell(row["segments"]["one_known_item"]),
            _cell(row["segments"]["new_products"]),
            _cell(row["segments"]["another_family"]),
            f"{window['window_recall_at_10']:.4f} / {window['window_ndcg_at_10']:.4f}",
        ]
        print(f"{name:<20}" + "".join(f"{cell:<34}" for cell in cells))
    print("\n" + f"{'model':<20}" + "".join(f"{name:<34}" for name in PERSONAL))
    for name, row in report.items():
        print(f"{name:<20}" + "".join(f"{_personal(row['metrics'], one):<34}" for one in PERSONAL))


def _personal(metrics: dict[str, float], name: str) -> str:
    low = metrics.get(f"{name}_low")
    if low is None:
        return f"{metrics[name]:g}"
    return f"{metrics[name]:.4f} [{low:.4f}-{metrics[f'{name}_high']:.4f}]"


def _cell(metrics: dict[str, float]) -> str:
    if "recall_at_10" not in metrics:
        return "-"
    return (
        f"{metrics['recall_at_10']:.4f} / {metrics['ndcg_at_10']:.4f} "
        f"[{metrics['recall_at_10_low']:.4f}-{metrics['recall_at_10_high']:.4f}]"
    )


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--reviews", type=Path, required=True, help="folder of the two csv files")
    parser.add_argument("--seconds", type=float, default=60, help="of tuning for each family")
    parser.add_argument("--trials", type=int, default=60, help="of tuning for each family")
    parser.add_argument("--embeddings", action="store_true", help="blend product text in")
    parser.add_argument("--json", type=Path, help="file of figures to write, or to add to")
    parser.add_argument("--models", nargs="+", choices=FAMILIES, default=FAMILIES, metavar="MODEL")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        main()
    except (InputError, OSError) as error:
        sys.exit(f"error: {error}")
