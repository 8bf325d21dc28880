"""The sequence benchmark, on a file that it has not seen."""

import json

import numpy as np
import pytest

from benchmarks.quality.sequences import Sequences, main
from recsys.errors import InputError
from recsys.models.histories import user_rows


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
    main(["--data", str(file), "--budget", "2", "--json", str(report)])
    content = json.loads(report.read_text())
    chosen = content["models"][content["selected"]]
    assert chosen["train_only"]["recall_at_10"] > 0.9
    assert content["models"]["popularity"]["train_only"]["recall_at_10"] < 0.5
    assert "<- selected" in capsys.readouterr().out


def test_an_empty_file_is_refused(tmp_path):
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(InputError, match=r"empty\.txt"):
        Sequences(tmp_path / "empty.txt")
