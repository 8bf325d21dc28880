import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.errors import InputError
from recsys.models import self_attention_training as training
from recsys.models.base import Histories
from recsys.models.histories import (
    histories_from_codes,
    joined,
    keep_entries,
    steps_from_end,
    strength,
    take_users,
    user_rows,
)
from recsys.models.kinds import CODE_OF
from recsys.models.self_attention import SelfAttention
from recsys.models.storage import ArtifactError
from recsys.schema import Kind
from tests.models.shop import DAY, GROUPS, ITEMS, START, USERS, taste_histories

SMALL = {"dimensions": 16, "epochs": 7, "learning_rate": 0.02, "dropout": 0.1}
VIEW = CODE_OF[Kind.VIEW]


@pytest.fixture(scope="module")
def model() -> SelfAttention:
    return created().fit(taste_histories(), ITEMS)


def created(seed: int = 1, **changes: float) -> SelfAttention:
    return SelfAttention.create({**SMALL, **changes}, seed)


def history(items: list[int], days: list[int], **arrays: list[float]) -> Histories:
    times = START + np.array(days, dtype=np.int64) * DAY
    of_user = np.zeros(len(items), dtype=np.int64)
    given = {name: np.array(values, dtype=np.float32) for name, values in arrays.items()}
    return histories_from_codes(of_user, np.array(items, dtype=np.int64), times, count=1, **given)


@st.composite
def shops(draw: st.DrawFn) -> Histories:
    """Users with ratings and signals, several of them at one time."""
    lengths = draw(st.lists(st.integers(0, 9), min_size=1, max_size=6))
    entries = sum(lengths)
    generator = np.random.default_rng(draw(st.integers(0, 1000)))
    viewed = generator.random(entries) < 0.3
    confidence = generator.choice([0, 2, 5, 6], entries).astype(np.float32)
    return histories_from_codes(
        np.repeat(np.arange(len(lengths)), lengths),
        generator.integers(0, ITEMS, entries),
        START + generator.integers(0, 5, entries) * DAY,
        count=len(lengths),
        confidence=np.where(viewed, np.float32(5), confidence),
        weight=np.where(viewed, np.float32(0.05), generator.choice([0.5, 1], entries)),
        kinds=np.where(viewed, VIEW, 0).astype(np.int8),
    )


def test_a_group_that_somebody_buys_from_ranks_first(model):
    top = np.argsort(-model.score(history([0, 6, 12], [1, 2, 3]), START)[0])[:7]
    assert (top % GROUPS == 0).mean() > 0.8


def test_what_follows_what_is_learned_with_its_direction():
    # Everybody goes through five products in their order, from wherever they begin.
    starts = np.arange(USERS) % 5
    places = np.arange(4)
    chains = histories_from_codes(
        np.repeat(np.arange(USERS), 4),
        ((starts[:, None] + places) % 5).ravel(),
        START + np.tile(places, USERS) * DAY,
        count=USERS,
    )
    model = created(epochs=10).fit(chains, 5)
    for item in range(5):
        assert model.score(history([item], [1]), START)[0].argmax() == (item + 1) % 5


@pytest.fixture(scope="module")
def uneven() -> SelfAttention:
    """A model with weights by chance, so that every one of them makes a difference."""
    model, generator = created(epochs=1).fit(taste_histories(), ITEMS), np.random.default_rng(0)
    for array in model._weights.values():
        array += 0.2 * generator.standard_normal(array.shape).astype(np.float32)
    return model


@settings(max_examples=20, deadline=None)
@given(shops())
def test_numpy_scores_as_torch_does(uneven, shop):
    model = uneven
    network = training.Network(ITEMS, model._parameters).eval()
    named = dict(network.named_parameters())
    with torch.no_grad():
        for name, array in {**model._weights, "vectors": model.item_vectors[:, :-1]}.items():
            named[name].copy_(torch.from_numpy(array.copy()))
    # Something comes next for everybody who likes something.
    liked = keep_entries(shop, strength(shop) > 0)
    lengths = np.diff(liked.indptr)
    asked = take_users(liked, np.flatnonzero(lengths > 0))
    if not asked.users:
        return
    more = histories_from_codes(
        np.concatenate([user_rows(asked), np.arange(asked.users)]),
        np.concatenate([asked.items, np.zeros(asked.users, dtype=np.int32)]),
        np.concatenate([asked.times, np.full(asked.users, START + 50 * DAY)]),
        count=asked.users,
        confidence=np.concatenate([asked.confidence, np.full(asked.users, np.float32(5))]),
        weight=np.concatenate([asked.weight, np.ones(asked.users, np.float32)]),
        kinds=np.concatenate([asked.kinds, np.zeros(asked.users, np.int8)]),
    )
    lessons = training.Lessons(more, 50)
    batch = training._batch(lessons, np.arange(asked.users), 50, torch.device("cpu"))
    with torch.no_grad():
        answered = network(batch).numpy()
    last = np.cumsum(lessons.answers) - 1
    scored = answered[last] @ model.item_vectors[:, :-1].T
    np.testing.assert_allclose(scored, model.score(asked, START), atol=1e-4, rtol=1e-4)


@settings(max_examples=50, deadline=None)
@given(shops(), st.integers(2, 6))
def test_each_answer_is_asked_of_the_moment_before_it(shop, length):
    lessons = training.Lessons(shop, length)
    taught = lessons.asked >= 0
    asked, answer = lessons.asked[taught], np.flatnonzero(taught)
    assert (lessons.times[asked] < lessons.times[answer]).all()
    runs = np.repeat(np.arange(len(lessons.starts)), lessons.lengths)
    assert lessons.answers.sum() == taught.sum()
    assert (lessons.lengths <= length + 1).all()
    assert len(runs) <= len(lessons.items)
    if length == 6 and len(shop.items) and np.diff(shop.indptr).max() <= 7:
        # Nothing is cut: all but the first moment of each user is asked for.
        first = (
            shop.times
            == shop.times[shop.indptr[:-1].clip(max=len(shop.items) - 1)][user_rows(shop)]
        )
        assert taught.sum() == (~first).sum()


def test_what_was_disliked_is_as_if_it_were_not_there(model):
    without = model.score(history([0, 6], [1, 3]), START)
    disliked = history([0, 7, 6, 9], [1, 2, 3, 4], confidence=[5, 0, 5, 0])
    assert np.array_equal(model.score(disliked, START), without)


def test_a_glance_changes_less_than_a_purchase(model):
    before = model.score(history([0, 6], [1, 2]), START)
    changes = [
        np.abs(model.score(history([0, 6, 7], [1, 2, 3], weight=[1, 1, weight]), START) - before)
        for weight in (0.05, 1.0)
    ]
    assert changes[0].max() < changes[1].max()


def test_the_order_of_what_was_bought_at_one_time_does_not_matter_to_what_follows(model):
    one = model.score(history([0, 7, 13, 6], [1, 2, 2, 3]), START)
    weights = model.score(history([0, 13, 7, 6], [1, 2, 2, 3]), START)
    assert np.array_equal(one, weights)


def test_only_the_latest_entries_are_read():
    model = created(length=3).fit(taste_histories(), ITEMS)
    long = model.score(history([5, 11, 0, 6, 12], [1, 2, 3, 4, 5]), START)
    assert np.array_equal(long, model.score(history([0, 6, 12], [3, 4, 5]), START))


def test_who_has_no_history_gets_what_was_bought_most(model):
    nobody = keep_entries(taste_histories(), np.zeros(USERS * 5, dtype=bool))
    counts = np.bincount(taste_histories().items, minlength=ITEMS)
    scores = model.score(nobody, START)[0]
    assert counts[scores.argmax()] == counts.max()
    assert (np.diff(counts[np.argsort(scores)]) >= 0).all()


def test_a_shop_of_customers_with_one_product_each_is_answered_by_popularity():
    items = np.array([3, 3, 3, 1, 1, 2])
    ones = histories_from_codes(np.arange(6), items, np.full(6, START), count=6)
    scores = created().fit(ones, 4).score(ones, START)
    assert (np.argsort(-scores, axis=1)[:, :3] == [3, 1, 2]).all()


def test_everything_at_one_moment_teaches_nothing_and_is_no_error():
    items, times = np.array([0, 1, 2]), np.full(3, START)
    model = created().fit(histories_from_codes(np.zeros(3, int), items, times, count=1), 3)
    assert np.isfinite(model.score(history([0], [1]), START)).all()


def test_a_catalogue_above_the_limit_is_compared_with_some_products():
    model = created(all_products=10, negatives=20).fit(taste_histories(), ITEMS)
    top = np.argsort(-model.score(history([0, 6, 12], [1, 2, 3]), START)[0])[:7]
    assert (top % GROUPS == 0).mean() > 0.8


def test_progress_reports_a_falling_loss_pass_by_pass():
    seen: dict[int, float] = {}
    created().fit(taste_histories(), ITEMS, lambda n, measured: seen.update({n: measured["loss"]}))
    assert list(seen) == list(range(1, 8))
    assert seen[7] < seen[3] < seen[1]


def test_whoever_stops_asking_has_a_model_of_fewer_passes():
    histories = taste_histories()
    whole = created(epochs=3).fit(histories, ITEMS)
    part = created()
    for number, _ in enumerate(part.passes(histories, ITEMS), start=1):
        if number == 3:
            break
    assert np.array_equal(part.score(histories, START), whole.score(histories, START))


def test_a_training_counts_an_answer_by_its_weight():
    """A pair that is there twice with half the weight is the pair once."""
    histories = taste_histories()
    halves = joined([histories, histories])
    halves.weight[:] = 0.5
    lessons = training.Lessons(halves, 50)
    assert lessons.strengths[lessons.asked >= 0].sum() == pytest.approx(USERS * 4 * 1.0)


KILLED = """
import sys, time
from pathlib import Path
from recsys.models import self_attention_training as training
from tests.models.shop import ITEMS, taste_histories
from tests.models.test_self_attention import created
training.CHECKPOINT_SECONDS = 0
def progress(number, measured):
    print(number, flush=True)
    if number == 3:
        time.sleep(60)
created().fit(taste_histories(), ITEMS, progress, checkpoint=Path(sys.argv[1]))
"""


def test_a_killed_training_goes_on_to_the_same_model(model, tmp_path: Path):
    code = [sys.executable, "-c", KILLED, str(tmp_path)]
    with subprocess.Popen(code, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        while process.stdout.readline().strip() != "3":
            assert process.poll() is None
        os.kill(process.pid, signal.SIGKILL)
    numbers: list[int] = []
    begun = time.monotonic()
    again = created().fit(
        taste_histories(), ITEMS, lambda number, _: numbers.append(number), checkpoint=tmp_path
    )
    assert time.monotonic() - begun < 30
    assert numbers == list(range(1, 8))
    histories = taste_histories()
    assert np.array_equal(again.score(histories, START), model.score(histories, START))


def test_a_checkpoint_of_other_data_or_a_torn_one_is_none(model, tmp_path: Path):
    created().fit(taste_histories(1), ITEMS, checkpoint=tmp_path)
    (checkpoint,) = tmp_path.iterdir()
    histories = taste_histories()
    for damage in (lambda content: content, lambda content: content[:1000], lambda _: b""):
        checkpoint.write_bytes(damage(checkpoint.read_bytes()))
        again = created().fit(histories, ITEMS, checkpoint=tmp_path)
        assert np.array_equal(again.score(histories, START), model.score(histories, START))


def test_a_loss_that_is_no_number_from_the_first_pass_on_is_an_error():
    with pytest.raises(InputError, match="pass 1 is not finite; learning_rate is 1e"):
        created(learning_rate=1e38).fit(taste_histories(), ITEMS)


def test_a_loss_that_is_no_number_leaves_the_passes_before_it(caplog):
    histories = take_users(taste_histories(), np.arange(12))  # one step a pass
    wild = {"learning_rate": 1e19}
    once = created(epochs=1, **wild).fit(histories, ITEMS)
    model = created(epochs=4, **wild).fit(histories, ITEMS)
    assert np.array_equal(model.item_vectors, once.item_vectors)
    assert "not finite" in caplog.text


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"dropout": 1}, "dropout: "),
        ({"heads": 3}, "dimensions must be a multiple of heads, got 16 and 3"),
        ({"epochs": 0}, "epochs: expected at least 1"),
    ],
)
def test_bad_parameters_are_refused_by_a_sentence(changes, sentence):
    with pytest.raises(InputError, match=sentence):
        created(**changes)


@pytest.mark.parametrize("name", ["item_vectors", "projection", "last_norm"])
def test_an_artifact_with_a_wrong_shape_is_refused(model, tmp_path: Path, name):
    model.save(tmp_path)
    array = np.load(tmp_path / f"{name}.npy")
    np.save(tmp_path / f"{name}.npy", array[..., :-1])
    with pytest.raises(ArtifactError, match=name):
        SelfAttention.load(tmp_path)


WITHOUT_TORCH = """
import sys
sys.modules["torch"] = None
from recsys.errors import InputError
from recsys.models.model_types import create_model
from tests.models.shop import ITEMS, taste_histories
create_model("item_knn", {}, 0).fit(taste_histories(), ITEMS)
try:
    create_model("self_attention", {}, 0).fit(taste_histories(), ITEMS)
except InputError as error:
    print(error)
"""


def test_without_torch_the_other_families_work_and_this_one_says_what_to_install():
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH], capture_output=True, text=True, check=True
    )
    assert "torch, which does not import" in done.stdout
    assert "requirements-torch.txt" in done.stdout


def test_scoring_does_not_import_torch(model, tmp_path: Path):
    model.save(tmp_path)
    code = (
        "import sys\nfrom pathlib import Path\n"
        "from recsys.models.model_types import model_class\n"
        "from tests.models.shop import taste_histories\n"
        "model = model_class('self_attention').load(Path(sys.argv[1]))\n"
        "print(model.score(taste_histories(), 0).shape, 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == f"({USERS}, {ITEMS}) False"


def test_training_leaves_the_draws_of_others_as_they_are():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    created(epochs=1).fit(taste_histories(), ITEMS)
    assert torch.equal(torch.rand(3), expected)
    assert steps_from_end(taste_histories()).max() == 4
