"""The sequence benchmark, on a file that it has not seen."""

import json
import time

import numpy as np
import pytest

from benchmarks.quality.sequences import MODELS, Sequences, main
from recsys.errors import InputError
from recsys.models.histories import user_rows

# All but the one that takes minutes.
MEASURED = ["--models", *(name for name in MODELS if name != "self_attention")]


def test_the_last_item_is_the_test_and_the_one_before_it_the_validation(tmp_path):
    file = tmp_path / "small.txt"
    file.write_text("7 a b c d\nx b c\n9 d a b\n")
    data = Sequences(file)
    assert data.items == 4
    assert data.test.targets.tolist() == [3, 1]
    assert data.validation.targets.tolist() == [2, 0]
    assert data.training.items.tolist() == [0, 1, 1, 2, 3]
    assert np.bincount(user_rows(data.test.histories)).tolist() == [3, 2]


def test_it_finds_out_on_which_item_another_follows(tmp_path, capsys):
    generator = np.random.default_rng(0)
    starts = generator.integers(0, 50, 300)
    lines = [f"u{user} " + " ".join(f"i{(start + step) % 50}" for step in range(5))
             for user, start in enumerate(starts)]  # fmt: skip
    file, report = tmp_path / "chains.txt", tmp_path / "report.json"
    file.write_text("\n".join(lines))
    main(["--data", str(file), "--budget", "2", "--json", str(report), *MEASURED])
    content = json.loads(report.read_text())
    chosen = content["models"][content["selected"]]
    assert chosen["train_only"]["recall_at_10"] > 0.9
    assert content["models"]["popularity"]["train_only"]["recall_at_10"] < 0.5
    assert "<- selected" in capsys.readouterr().out


def test_an_empty_file_is_refused(tmp_path):
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(InputError, match=r"empty\.txt"):
        Sequences(tmp_path / "empty.txt")


def repeated(generator):
    """Users who buy the same few things again and again: answers may stand in the history."""
    return [generator.choice(6, size=12) for _ in range(60)]


def few_items(generator):
    """Hardly more items than a history is long."""
    return [generator.permutation(5)[: generator.integers(3, 6)] for _ in range(80)]


def short(generator):
    """One known item in training, and users who have no test at all."""
    return [generator.permutation(200)[: generator.integers(1, 4)] for _ in range(300)]


def dense(generator):
    """Long histories of popular items, as of films."""
    odds = 1 / np.arange(1, 301)
    return [
        generator.choice(300, size=generator.integers(40, 120), replace=False, p=odds / odds.sum())
        for _ in range(150)
    ]


def two_items(generator):
    return [np.array([0, 1, 0]), np.array([1, 0, 1])] * 5


@pytest.mark.parametrize("shape", [repeated, few_items, short, dense, two_items])
def test_data_of_any_shape_is_tuned_in_time_and_judged(tmp_path, shape):
    sequences = shape(np.random.default_rng(0))
    file, report = tmp_path / "data.txt", tmp_path / "report.json"
    file.write_text(
        "\n".join(
            f"{user} " + " ".join(map(str, sequence)) for user, sequence in enumerate(sequences)
        )
    )
    begun = time.monotonic()
    main(["--data", str(file), "--budget", "2", "--json", str(report), *MEASURED])
    assert time.monotonic() - begun < 60
    content = json.loads(report.read_text())
    for row in content["models"].values():
        for figures in (row["train_only"], row["refit"]):
            assert 0 <= figures["ndcg_at_10"] <= figures["recall_at_10"] <= 1


def test_it_finds_out_that_order_does_not_matter(tmp_path):
    """The items of a basket in any order: what comes before is as telling as what comes after."""
    generator = np.random.default_rng(1)
    lines = [
        f"{user} "
        + " ".join(str(12 * (user % 30) + item) for item in generator.permutation(12)[:7])
        for user in range(400)
    ]
    file, report = tmp_path / "baskets.txt", tmp_path / "report.json"
    file.write_text("\n".join(lines))
    main(["--data", str(file), "--budget", "4", "--json", str(report), *MEASURED])
    content = json.loads(report.read_text())
    assert content["models"]["item_knn"]["parameters"]["reverse"] > 0.3
    assert content["models"][content["selected"]]["train_only"]["recall_at_10"] > 0.95
