"""From a published data version to a registered model."""

import contextlib
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd

from recsys.data import schema
from recsys.data.versions import PublishedVersion, current_version, open_version
from recsys.errors import InputError
from recsys.evaluation.leave_one_out import LeaveOneOut, read_leave_one_out
from recsys.evaluation.metrics import metrics_per_user, summarise
from recsys.evaluation.ranking import HeldOut, Scorer, rank_targets
from recsys.logs import fields, file_logger
from recsys.models.artifacts import save_artifact
from recsys.models.base import Model
from recsys.models.config import TrainingConfig, load_training_config
from recsys.models.families import family_of
from recsys.models.popularity import Popularity, RecentPopularity
from recsys.models.training_runs import TrainingRun, recorded_run
from recsys.registry import Registry
from recsys.schedule import load_schedule
from recsys.settings import REPOSITORY, Settings

_PRODUCT_COLUMNS = [
    schema.PRODUCT,
    schema.PRODUCT_NAME,
    schema.BRAND,
    schema.CATEGORY,
    schema.PRICE,
    schema.FAMILY,
    "available",
]


def plan_training(
    settings: Settings, model_types: Sequence[str] | None = None
) -> list[dict[str, str]]:
    """What a run has to train: ``[{"model_type", "version_id"}, ...]`` on the published version.

    Raises `InputError` for an unknown type, a bad configuration or when there is no data.
    """
    config = load_training_config(settings)
    chosen = list(dict.fromkeys(model_types or config.model_types))
    for model_type in chosen:
        family_of(model_type)
    version_id = current_version(settings).version_id
    return [{"model_type": model_type, "version_id": version_id} for model_type in chosen]


def train_model(
    settings: Settings, model_type: str, version_id: str, *, reason: str | None = None
) -> dict[str, Any]:
    """Train, evaluate, save and register one model; returns a summary.

    The figures come from a model that never saw the test events; the model that is saved with
    them is fitted again on everything. `reason` says why the training was asked for.

    Raises `InputError` if the data cannot be used or the trained model is not sound; then
    nothing is registered.
    """
    config = load_training_config(settings)
    family = family_of(model_type)
    version = open_version(settings, version_id)
    with (
        recorded_run(settings, model_type, version.version_id) as run,
        _logged(settings, model_type, version) as log,
    ):
        start = time.monotonic()
        data = read_leave_one_out(version)
        items = len(data.item_ids)
        model = family.create(config.parameters.get(model_type, {}), config.seed)
        run.hyperparameters = model.hyperparameters
        validation = evaluate(model.fit(data.training, items), data.validation)
        model.fit(data.training_and_validation, items)
        metrics = evaluate(model, data.test)
        comparison = compare_with_baselines(data, metrics)
        log.info("evaluated%s", fields(**_headline(metrics), **comparison))
        model.fit(data.everything, items, log.progress)
        fitted = time.monotonic() - start
        model_id = _save(settings, config, version, data, model, metrics)
        Registry(settings).register(
            model_id,
            data_version=version.version_id,
            model_type=model_type,
            hyperparameters=model.hyperparameters,
            metrics=metrics,
            baseline_comparison=comparison,
            training_info={
                "duration_seconds": round(fitted, 2),
                "seed": config.seed,
                "users": len(data.user_ids),
                "items": items,
                "interactions": len(data.everything.items),
                "test_users": data.test.users,
                "reason": reason,
                "validation": _headline(validation),
            },
            git_commit=git_commit(),
        )
        return _finish(run, model_id, version.version_id, metrics, comparison, fitted)


def select_best(settings: Settings, trained: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Select among the models of the data version that was trained on; the run's summary.

    `trained` are the summaries of the models of this run, of which there must be one.
    """
    if not trained:
        raise InputError("no model was trained in this run; there is nothing to select from")
    config = load_training_config(settings)
    version_id = trained[0]["data_version"]
    selection = Registry(settings).select_best(
        version_id, metric=config.selection_metric, selected_by="model_training"
    )
    return {"data_version": version_id, "trained": list(trained), **selection.model_dump()}


def evaluate(model: Scorer, held_out: HeldOut) -> dict[str, float]:
    """All metrics of `model` on `held_out` with their intervals."""
    return summarise(metrics_per_user(rank_targets(model, held_out)))


def compare_with_baselines(data: LeaveOneOut, metrics: Mapping[str, float]) -> dict[str, Any]:
    """`metrics` on the test events beside those of both popularity baselines."""
    items = len(data.item_ids)
    known = data.training_and_validation
    always = evaluate(Popularity().fit(known, items), data.test)
    recent = evaluate(RecentPopularity().fit(known, items), data.test)
    ours, baseline = metrics["recall_at_10"], always["recall_at_10"]
    passes = bool(np.isfinite(ours)) and ours > baseline
    verb = "beats" if passes else "does not beat"
    return {
        "baseline": "popularity",
        "baseline_recall_at_10": baseline,
        "baseline_ndcg_at_10": always["ndcg_at_10"],
        "recent_popularity_recall_at_10": recent["recall_at_10"],
        "recent_popularity_ndcg_at_10": recent["ndcg_at_10"],
        "improvement_pct": round(100 * (ours / baseline - 1), 2) if baseline else None,
        "passes": passes,
        "reason": f"{verb} popularity ({ours:.4f} against {baseline:.4f} recall@10)",
    }


def git_commit() -> str | None:
    """The commit that the code is at, None outside a repository."""
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"],  # noqa: S607
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


class _TrainingLog:
    """Lines of ``logs/cf/<type>.log``."""

    def __init__(self, settings: Settings, model_type: str) -> None:
        path = settings.logs / "cf" / f"{model_type}.log"
        self._logger = file_logger(model_type, path, load_schedule(settings).zone)
        self.info = self._logger.info
        self.error = self._logger.error

    def progress(self, iteration: int, measured: Mapping[str, float]) -> None:
        values = {name: f"{value:.6g}" for name, value in measured.items()}
        self.info("iteration%s", fields(number=iteration, **values))


@contextlib.contextmanager
def _logged(
    settings: Settings, model_type: str, version: PublishedVersion
) -> Iterator[_TrainingLog]:
    log = _TrainingLog(settings, model_type)
    log.info("Training started%s", fields(data_version=version.version_id))
    start = time.monotonic()
    try:
        yield log
    except BaseException as error:
        log.error("Training failed%s", fields(error=error))
        raise
    log.info("Training completed%s", fields(duration=f"{time.monotonic() - start:.1f}s"))


def _save(
    settings: Settings,
    config: TrainingConfig,
    version: PublishedVersion,
    data: LeaveOneOut,
    model: Model,
    metrics: Mapping[str, float],
) -> str:
    model_id = _free_model_id(settings, model.model_type)
    recent = RecentPopularity().fit(data.everything, len(data.item_ids))
    # The test asked users who have a history: of these, a fixed handful.
    lengths = np.diff(data.everything.indptr)
    known = np.argsort(-lengths, kind="stable")[: config.sample_users]
    save_artifact(
        settings.artifacts / model.model_type / model_id,
        model=model,
        item_ids=data.item_ids,
        user_ids=data.user_ids,
        histories=data.everything,
        popularity=recent.at(int(version.as_of.timestamp())),
        products=_products(version),
        manifest={
            "model_id": model_id,
            "data_version": version.version_id,
            "created_at": datetime.now(load_schedule(settings).zone).isoformat(timespec="seconds"),
            "metrics": dict(metrics),
            "sample_users": [data.user_ids[user] for user in known],
        },
    )
    return model_id


def _products(version: PublishedVersion) -> pd.DataFrame:
    return version.products()[_PRODUCT_COLUMNS]


def _free_model_id(settings: Settings, model_type: str) -> str:
    """``als_20250115_100000`` in local time; waits for the next second if that one is taken."""
    zone = load_schedule(settings).zone
    while True:
        model_id = f"{model_type}_{datetime.now(zone):%Y%m%d_%H%M%S}"
        if not (settings.artifacts / model_type / model_id).exists():
            return model_id
        time.sleep(0.1)


def _headline(metrics: Mapping[str, float]) -> dict[str, float]:
    return {name: metrics[name] for name in ("recall_at_10", "ndcg_at_10")}


def _finish(
    run: TrainingRun,
    model_id: str,
    data_version: str,
    metrics: Mapping[str, float],
    comparison: Mapping[str, Any],
    fitted: float,
) -> dict[str, Any]:
    summary: dict[str, Any] = {
        **_headline(metrics),
        "baseline_recall_at_10": comparison["baseline_recall_at_10"],
        "improvement_pct": comparison["improvement_pct"],
        "model_id": model_id,
    }
    run.results = dict(summary)
    return {
        **summary,
        "data_version": data_version,
        "fit_seconds": round(fitted, 2),
        "passes": comparison["passes"],
    }
