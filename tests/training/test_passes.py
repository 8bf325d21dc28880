"""How many passes of the sequence model are chosen, and how long that may take."""

import time
from dataclasses import replace

import numpy as np
import pytest

from recsys.evaluation.ranking import HeldOut
from recsys.models.histories import keep_entries, steps_from_end
from recsys.training import family_tuning
from recsys.training.fits import KeptFits
from recsys.training.subject import Subject, objective
from recsys.training.tuning import tune
from tests.models.shop import DAY, ITEMS, START, USERS, taste_histories

SMALL = {"dimensions": 8, "learning_rate": 0.1, "dropout": 0.1}


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(family_tuning, "_MOST_PASSES", 8)
    monkeypatch.setattr(family_tuning, "_PATIENCE", 2)


@pytest.fixture(scope="module")
def subject() -> Subject:
    histories = taste_histories()
    last = steps_from_end(histories) == 0
    training = keep_entries(histories, ~last)
    questions = HeldOut(
        histories=training,
        now=np.full(USERS, START + 400 * DAY),
        indptr=np.arange(USERS + 1),
        targets=histories.items[last],
    )
    return Subject(training, questions, ITEMS, seed=3)


def test_a_refit_of_as_many_passes_is_as_good_as_what_was_found(subject):
    found = tune("self_attention", subject, SMALL, seconds=60, trials=1)
    assert found.trials == 1
    assert found.parameters["dimensions"] == 8
    assert len(found.history) == min(found.parameters["epochs"] + 2, 8)
    assert found.history == sorted(found.history)
    [tried] = found.tried
    assert tried.parameters["epochs"] == found.parameters["epochs"]
    assert list(np.maximum.accumulate(tried.passes)) == found.history
    again = subject.fit("self_attention", found.parameters)
    assert objective(again, subject.validation) == found.score == found.history[-1]


def test_what_was_found_is_not_fitted_again(subject, tmp_path):
    keeping = replace(subject, fits=KeptFits(tmp_path))
    found = tune("self_attention", keeping, SMALL, seconds=60, trials=1)
    (folder,) = (tmp_path / "self_attention").glob("*")
    made, heard = folder.stat().st_mtime_ns, []
    kept = keeping.fit(
        "self_attention",
        found.parameters,
        progress=lambda number, told: heard.append((number, told)),
    )
    assert (folder.stat().st_mtime_ns, [*folder.parent.iterdir()]) == (made, [folder])
    assert [number for number, _ in heard] == [*range(1, found.parameters["epochs"] + 1)]
    told = []
    anew = subject.fit(
        "self_attention", found.parameters, progress=lambda number, one: told.append((number, one))
    )
    assert heard == told
    asked = subject.validation
    assert np.array_equal(kept.score(asked.histories, 0), anew.score(asked.histories, 0))


def test_the_time_ends_a_training_after_the_pass_that_it_is_in(subject):
    begun = time.monotonic()
    found = tune("self_attention", subject, SMALL, seconds=0, trials=5)
    assert found.trials == 1
    assert found.parameters["epochs"] == 1
    assert time.monotonic() - begun < 20


def test_other_networks_are_tried_while_there_is_time(subject):
    found = tune("self_attention", subject, SMALL | {"dimensions": 4}, seconds=600, trials=2)
    assert found.trials == 2
    assert found.parameters["dropout"] in (0.1, 0.5)
