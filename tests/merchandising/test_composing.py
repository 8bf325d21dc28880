from pathlib import Path

import pytest

from tests.merchandising.steered_shops import cases, check


@pytest.mark.parametrize("seed", range(40))
def test_a_list_is_what_the_words_of_the_page_make_it(tmp_path: Path, seed: int):
    """Rules, spread, filters, availability and what was had, on every path: see
    benchmarks/serving/steering.py for a hundred thousand."""
    for case in cases(seed, tmp_path, 60):
        check(case)
