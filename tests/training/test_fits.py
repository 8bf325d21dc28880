"""Fits of slow model types are made once, whoever asks for them."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from recsys.evaluation.leave_one_out import FOLDS
from recsys.models.hybrid import COMPONENTS
from recsys.models.item_knn import ItemKnn
from recsys.models.model_types import MODEL_TYPES
from recsys.registry import Registry
from recsys.training.fits import KeptFits, fits_folder
from recsys.training.job import train_model
from recsys.upkeep import job
from tests.models.shop import DAY, ITEMS, START, publish_shop, taste_histories, taste_interactions
from tests.upkeep.ageing import aged

NOW = START + 301 * DAY


class SlowKnn(ItemKnn):
    """Counts its fits, and goes on from its checkpoint."""

    slow = True
    fits: ClassVar[list[int]] = []
    resumed: ClassVar[list[str]] = []
    breaks: ClassVar[list[Exception]] = []

    def fit(
        self,
        histories: Any,
        items: int,
        progress: Any = None,
        checkpoint: Path | None = None,
    ) -> "SlowKnn":
        assert checkpoint is not None
        note = checkpoint / "epoch"
        self.resumed.extend([note.read_text()] if note.exists() else [])
        note.write_text("3")
        if self.breaks:
            raise self.breaks.pop()
        self.fits.append(len(histories.items))
        super().fit(histories, items)
        for epoch in (1, 2):
            if progress:
                progress(epoch, {"loss": 1 / epoch})
        return self


@pytest.fixture(autouse=True)
def nothing_was_fitted():
    for noted in (SlowKnn.fits, SlowKnn.resumed, SlowKnn.breaks):
        noted.clear()


@pytest.fixture
def kept(tmp_path):
    return KeptFits(tmp_path / "fits")


def asked(kept, parameters=None, *, seed=1, histories=None, items=ITEMS, progress=None):
    model = SlowKnn.create(parameters or {}, seed)
    return kept.fit(model, seed, histories or taste_histories(), items, progress)


def test_the_same_fit_is_made_once_and_scores_like_one_that_is_not_kept(kept):
    plain = ItemKnn.create({}, 1).fit(taste_histories(), ITEMS)
    for _ in range(2):
        model = asked(kept)
        assert np.array_equal(
            model.score(taste_histories(), NOW), plain.score(taste_histories(), NOW)
        )
        assert model.hyperparameters == plain.hyperparameters
    assert len(SlowKnn.fits) == 1


def test_what_training_does_not_read_is_as_asked_for(kept):
    asked(kept)
    model = asked(kept, {"history_decay": 0.4})
    plain = ItemKnn.create({"history_decay": 0.4}).fit(taste_histories(), ITEMS)
    assert np.array_equal(model.score(taste_histories(), NOW), plain.score(taste_histories(), NOW))
    assert len(SlowKnn.fits) == 1


@pytest.mark.parametrize(
    "other",
    [
        {"parameters": {"window": 2}},
        {"seed": 2},
        {"histories": taste_histories(1)},
        {"histories": replace(taste_histories(), kinds=np.ones(1200, np.int8))},
        {"items": ITEMS + 1},
    ],
)
def test_another_fit_is_another(kept, other):
    asked(kept)
    asked(kept, **other)
    assert len(SlowKnn.fits) == 2


def test_the_measurements_of_a_kept_fit_are_heard_again(kept):
    heard = []
    for _ in range(2):
        asked(kept, progress=lambda number, measured: heard.append((number, measured)))
    assert heard == 2 * [(1, {"loss": 1.0}), (2, {"loss": 0.5})]


def test_an_unsound_one_is_made_again(kept, caplog):
    asked(kept)
    victim = next(kept.folder.rglob("*.npy"))
    victim.write_bytes(victim.read_bytes()[:-1])
    asked(kept)
    asked(kept)
    assert len(SlowKnn.fits) == 2
    assert victim.name in caplog.text


def test_a_fit_that_was_killed_goes_on_from_its_checkpoint(kept):
    SlowKnn.breaks.append(MemoryError())
    with pytest.raises(MemoryError):
        asked(kept)
    asked(kept)
    assert SlowKnn.resumed == ["3"]
    assert not list(kept.folder.rglob("*.checkpoint"))


def test_who_asks_while_it_is_made_waits_for_it(kept):
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: asked(kept), range(4)))
    assert len(SlowKnn.fits) == 1


def test_a_training_its_repetition_and_the_hybrid_share_their_fits(settings, monkeypatch):
    text = "tuning: {seconds: 60, trials: 2}\nparameters: {hybrid: {weights: {als: 0.0}}}\n"
    (settings.home / "config").mkdir(parents=True)
    (settings.home / "config" / "training.yaml").write_text(text)
    version = publish_shop(settings, taste_interactions())
    plain = train_model(settings, "item_knn", version)
    figures = Registry(settings).get(plain["model_id"]).metrics
    (settings.artifacts / "tuning" / "item_knn.json").unlink()
    for types in (MODEL_TYPES, COMPONENTS):
        monkeypatch.setitem(types, "item_knn", SlowKnn)
    first = train_model(settings, "item_knn", version)
    assert Registry(settings).get(first["model_id"]).metrics == figures
    made = len(SlowKnn.fits)
    train_model(settings, "item_knn", version)
    assert len(SlowKnn.fits) == made
    train_model(settings, "hybrid", version)
    assert len(SlowKnn.fits) == made + FOLDS
    train_model(settings, "hybrid", version)
    assert len(SlowKnn.fits) == made + FOLDS


def test_kept_fits_go_after_two_days(settings):
    kept = KeptFits(fits_folder(settings))
    asked(kept)
    (of_a_killed_one := kept.folder / "item_knn" / "0.checkpoint").mkdir()
    assert "kept fits" not in job.clean_data(settings, dry_run=False)
    for path in [*kept.folder.rglob("*"), of_a_killed_one]:
        aged(path, 3)
    assert job.clean_data(settings, dry_run=False)["kept fits"]["count"] == 2
    assert list((kept.folder / "item_knn").iterdir()) == []
