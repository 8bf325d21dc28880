"""From a published data version to a registered model."""

import json
import logging
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from recsys import schema
from recsys.arrays import Int32Array
from recsys.config import load_config
from recsys.data.versions import PublishedVersion, current_version, open_version
from recsys.errors import InputError, RequestError
from recsys.evaluation import PERSONAL
from recsys.evaluation.leave_one_out import LeaveOneOut, read_leave_one_out
from recsys.evaluation.report import Report, report_on
from recsys.logs import fields
from recsys.models.artifacts import save_artifact
from recsys.models.base import Histories, Model
from recsys.models.complements import Complements, learn_complements
from recsys.models.histories import keep_entries, most_active
from recsys.models.hybrid import Hybrid
from recsys.models.kinds import weight_of_codes
from recsys.models.linear import Linear
from recsys.models.model_types import model_class
from recsys.models.popularity import RecentPopularity
from recsys.models.replenishment import last_got, learn_due_days
from recsys.registry import Registry
from recsys.schedule import load_zone
from recsys.settings import REPOSITORY, Settings
from recsys.spark.als import als_trainer
from recsys.text import fold
from recsys.training.config import TrainingConfig
from recsys.training.fits import KeptFits, fits_folder
from recsys.training.runs import COMPARED, HEADLINE, learning_curves, recorded_run
from recsys.training.signals import choose_weights, report_on_signals
from recsys.training.subject import Subject, content_vectors, product_traits
from recsys.training.tuning import choose_parameters

logger = logging.getLogger(__name__)

SAMPLE_USERS = 10
"""Known users whose recommendations a deployment checks, stored with the model."""


def plan_training(
    settings: Settings, model_types: Sequence[str] | None = None
) -> list[dict[str, str]]:
    """What a run has to train: ``[{"model_type", "version_id"}, ...]`` on the published version.
    Of the configured types `linear` is left out where there are more products than it takes.
    Raises `InputError` for an unknown type, a bad configuration or when there is no data."""
    config = load_config(settings, TrainingConfig)
    chosen = list(dict.fromkeys(model_types or config.model_types))
    for model_type in chosen:
        try:
            model_class(model_type)
        except InputError as error:
            raise RequestError(f"model_types: {error}") if model_types else error from None
    version = current_version(settings)
    if not model_types and Linear.model_type in chosen and _too_many_products(config, version):
        chosen.remove(Linear.model_type)
    return [{"model_type": one, "version_id": version.version_id} for one in chosen]


def _too_many_products(config: TrainingConfig, version: PublishedVersion) -> bool:
    """Whether `Linear` would refuse `version`: a shop that grows past its limit did not ask for a
    training that fails."""
    linear = Linear.create(config.parameters.get(Linear.model_type, {}))
    most, products = linear.hyperparameters["most_items"], len(version.mappings()[1])
    if products > most:
        logger.warning("linear is left out: %s products, most_items is %s", products, most)
    return bool(products > most)


def train_model(
    settings: Settings, model_type: str, version_id: str, *, reason: str | None = None
) -> dict[str, Any]:
    """Tune, evaluate, fit, save and register one model; returns a summary.

    The figures come from a model that never saw the test events; the model that is saved with
    them is fitted again on everything. `reason` says why the training was asked for.

    Raises `InputError` if the data cannot be used or the trained model is not sound; then
    nothing is registered."""
    config = load_config(settings, TrainingConfig)
    model_class(model_type)
    version = open_version(settings, version_id)
    with recorded_run(settings, model_type, version.version_id) as run:
        start = time.monotonic()
        with als_trainer(config.engine, settings) as trainer:
            data = read_leave_one_out(version)
            set_aside = len(data.everything.items) - len(data.learnt.items)
            run.log.info("prepared%s", fields(data=version_id, set_aside=set_aside))
            chosen = choose_weights(settings, config, version.version_id, data)
            data = data.weighed(weight_of_codes(chosen.weights))
            hybrid = model_type == Hybrid.model_type
            texts = content_vectors(settings, data.item_ids) if hybrid else None
            traits = product_traits(version, data, texts) if hybrid else None
            known = (data.training, data.validation, len(data.item_ids))
            folds = data.folds(config.seed)
            weights = chosen.weights if data.has_signals else None
            fits = KeptFits(fits_folder(settings))
            subject = Subject(*known, config.seed, texts, trainer, weights, traits, fits, folds)
            rest = chosen.rest_of(config)
            tuned = choose_parameters(settings, rest, version.version_id, model_type, subject)
            run.log.info("tuned%s", fields(score=f"{tuned.score:.4f}", **tuned.parameters))
            run.hyperparameters = tuned.parameters
            signals = report_on_signals(model_type, tuned.parameters, subject, data, chosen)
            if signals:
                run.log.info("weighed%s", fields(trials=chosen.trials, **chosen.weights))
            for name, figures in signals.get("without", {}).items():
                run.log.info("signals%s", fields(without=name, **figures))
            fit = partial(subject.fit, model_type, tuned.parameters)
            model = fit(data.learnt, run.progress)
            report = report_on(fit, data, model, config.most_slice_loss)
            headline = {name: report.metrics[name] for name in HEADLINE}
            personal = {name: report.metrics[name] for name in PERSONAL}
            run.log.info("evaluated%s", fields(**headline, **personal, **report.comparison))
        seconds = round(time.monotonic() - start, 2)
        training_info = {
            "duration_seconds": seconds,
            "seed": config.seed,
            "engine": config.engine.value,
            "users": len(data.user_ids),
            "items": len(data.item_ids),
            "interactions": len(data.everything.items),
            "set_aside": set_aside,
            "test_users": data.test.users,
            "reason": reason,
            "tuning": {"score": tuned.score, "trials": tuned.trials, "reused": tuned.reused},
            "segments": report.segments,
            **({"signals": signals} if signals else {}),
        }
        tried = [one._asdict() for one in tuned.tried]
        curves = {"iterations": run.curves, "search": tuned.history, "trials": tried}
        written = {**asdict(report), "training": training_info, "curves": curves}
        attachments = {
            "evaluation.json": json.dumps(written, ensure_ascii=False, indent=2).encode() + b"\n",
            "learning_curve.png": learning_curves(model_type, run.curves, tuned.history),
        }
        model_id = _save(settings, version, data, model, report, chosen.weights, attachments)
        compared = {name: report.comparison[name] for name in COMPARED}
        run.results = {**headline, **compared, "model_id": model_id}
        run.write_down()
        # Nothing that can fail may follow: what is registered is there for the next selection.
        Registry(settings).register(
            model_id,
            data_version=version.version_id,
            model_type=model_type,
            hyperparameters=model.hyperparameters,
            metrics=report.metrics,
            baseline_comparison=report.comparison,
            training_info=training_info,
            git_commit=git_commit(),
        )
    return {
        **run.results,
        **personal,
        "data_version": version.version_id,
        "duration_seconds": seconds,
        "set_aside": set_aside,
        "passes": report.comparison["passes"],
        "reason": report.comparison["reason"],
        **({"signals": signals} if signals else {}),
    }


def select_best(settings: Settings, trained: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Select among the models of the data version that was trained on; the run's summary. `trained`
    are the summaries of the models of this run, of which there must be one."""
    if not trained:
        raise InputError("no model was trained in this run; there is nothing to select from")
    config = load_config(settings, TrainingConfig)
    version_id = trained[0]["data_version"]
    registry = Registry(settings)
    selection = registry.select_best(
        version_id,
        metric=config.selection_metric,
        selected_by="model_training",
        most_slice_loss=config.most_slice_loss,
    )
    return {"data_version": version_id, "trained": list(trained), **selection.model_dump()}


def complements_of(settings: Settings, version: PublishedVersion, data: LeaveOneOut) -> Complements:
    """What is bought together in `version`, from all that a model of it learns from."""
    texts = content_vectors(settings, data.item_ids)
    vectors = None if texts is None else texts.vectors
    return learn_complements(_learnt(data), data.families, categories_of(version), vectors)


def categories_of(version: PublishedVersion) -> Int32Array:
    """``(items,)`` number of each product's category, 0 where it has none."""
    names = version.products()[schema.CATEGORY].map(fold)
    return 1 + pd.factorize(names.where(names != ""))[0].astype(np.int32)


def _learnt(data: LeaveOneOut) -> Histories:
    """An entry an event."""
    return keep_entries(data.numbered.histories, data.numbered.learnt)


def git_commit() -> str | None:
    """The commit that the code is at, None outside a repository."""
    git = partial(subprocess.run, cwd=REPOSITORY, capture_output=True, text=True, timeout=10)
    try:
        return str(git(["git", "rev-parse", "HEAD"], check=True).stdout).strip()
    except (OSError, subprocess.SubprocessError):
        return None


def _save(
    settings: Settings,
    version: PublishedVersion,
    data: LeaveOneOut,
    model: Model,
    report: Report,
    weights: Mapping[str, float],
    attachments: Mapping[str, bytes],
) -> str:
    model_id = _free_model_id(settings, model.model_type)
    recent = RecentPopularity().fit(data.learnt, len(data.item_ids))
    # The test asked users who have a history: of these, a fixed handful.
    known = most_active(data.everything, SAMPLE_USERS)
    save_artifact(
        settings.artifacts / model.model_type / model_id,
        model=model,
        item_ids=data.item_ids,
        user_ids=data.user_ids,
        histories=data.everything,
        popularity=recent.at(int(version.as_of.timestamp())),
        products=version.products(),
        manifest={
            "model_id": model_id,
            "data_version": version.version_id,
            "created_at": datetime.now(load_zone(settings)).isoformat(timespec="seconds"),
            "metrics": report.metrics,
            "sample_users": [data.user_ids[user] for user in known],
            "signal_weights": dict(weights),
        },
        attachments=attachments,
        complements=complements_of(settings, version, data),
        due_days=learn_due_days(_learnt(data), data.families, categories_of(version)),
        got=last_got(data.everything, data.numbered.histories),
    )
    return model_id


def _free_model_id(settings: Settings, model_type: str) -> str:
    """``als_20250115_100000`` in local time; waits for the next second if that one is taken."""
    zone = load_zone(settings)
    while True:
        model_id = f"{model_type}_{datetime.now(zone):%Y%m%d_%H%M%S}"
        if not (settings.artifacts / model_type / model_id).exists():
            return model_id
        time.sleep(0.1)
