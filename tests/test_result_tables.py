"""The tables of quality on the pages are the figures of ``benchmarks/results``."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.quality import tables
from benchmarks.quality.sequences import main
from recsys.errors import InputError
from recsys.models.model_types import MODEL_TYPES

PAGE = "before\n<!-- results: chains -->\nold\n<!-- end of results -->\nafter\n"


@pytest.fixture(scope="module")
def chains(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sequences that a model learns, and figures of two models with two seeds."""
    folder = tmp_path_factory.mktemp("chains")
    starts = np.random.default_rng(0).integers(0, 20, 80)
    lines = [
        f"u{user} " + " ".join(f"i{(start + step) % 20}" for step in range(5))
        for user, start in enumerate(starts)
    ]
    (folder / "chains.txt").write_text("\n".join(lines))
    measure(folder, "popularity", "item_knn", "--seeds", "2")
    return folder


def measure(folder: Path, *models: str) -> dict[str, Any]:
    file, report = folder / "chains.txt", folder / "chains.json"
    main(["--data", str(file), "--json", str(report), "--budget", "1", "--models", *models])
    found: dict[str, Any] = json.loads(report.read_text(encoding="utf-8"))
    return found


def test_the_tables_of_the_pages_are_the_figures_that_were_measured() -> None:
    """Otherwise run ``python -m benchmarks.quality.tables``."""
    for page in tables.pages():
        text = page.read_text(encoding="utf-8")
        assert tables.filled(text) == text, page


def test_every_file_of_results_stands_on_a_page_and_says_how_it_was_made() -> None:
    text = "".join(page.read_text(encoding="utf-8") for page in tables.pages())
    for path in tables.RESULTS.glob("*.json"):
        assert f"<!-- results: {path.stem} -->" in text
        for row in json.loads(path.read_text(encoding="utf-8"))["models"].values():
            made = row["made"]
            assert made["configuration"]
            assert made["seeds"]
            assert made["date"]
            assert made["commit"]
            assert made["machine"]["cores"]


def test_several_seeds_are_a_mean_and_a_spread(chains: Path) -> None:
    rows = json.loads((chains / "chains.json").read_text(encoding="utf-8"))["models"]
    assert rows["item_knn"]["made"]["seeds"] == [42, 43]
    assert rows["item_knn"]["refit_spread"]["ndcg_at_10"] >= 0
    assert rows["popularity"]["train_only_spread"]["recall_at_10"] == 0
    assert " ± .0000 / .0000 |" in tables.table("chains", chains)


def test_a_model_is_measured_again_and_the_rows_of_the_others_stay(chains: Path) -> None:
    before = json.loads((chains / "chains.json").read_text(encoding="utf-8"))["models"]
    after = measure(chains, "linear")["models"]
    assert set(after) == {"popularity", "item_knn", "linear"}
    assert {name: after[name] for name in before} == before
    assert after["linear"]["made"]["seeds"] == [42]


def test_a_table_is_filled_in_and_nothing_else_of_a_page_changes(chains: Path) -> None:
    text = tables.filled(PAGE, chains)
    assert text.startswith("before\n<!-- results: chains -->\n\n| model |")
    assert text.endswith("<!-- end of results -->\nafter\n")
    assert "old" not in text
    assert "(selected)" in text
    assert tables.filled(text, chains) == text


def test_a_variant_that_is_no_model_type_is_never_selected() -> None:
    selected = re.findall(r"\*\*(.+?)\*\* \(selected\)", tables.table("hasaki"))
    assert len(selected) == 1
    assert selected[0] in MODEL_TYPES


def test_figures_of_other_data_are_not_mixed(chains: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.txt"
    other.write_text("a 1 2 3\nb 2 3 1\n")
    with pytest.raises(InputError, match=r"chains\.json: has figures of .*chains\.txt"):
        main(["--data", str(other), "--json", str(chains / "chains.json"), "--budget", "1"])


def test_a_table_without_results_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"chains\.json: there are no such results"):
        tables.filled(PAGE, tmp_path)
