"""The texts of the reports: every language has all of them, and none is there for nothing."""

import re
from pathlib import Path
from string import Formatter

import pytest

from recsys import drift, experiments, outcomes, quality, reporting
from recsys.drift.page import STATES
from recsys.language import LANGUAGES, read_texts

SHARED = Path(reporting.__file__).parent
AREAS = [SHARED, *(Path(area.__file__).parent for area in (drift, quality, outcomes, experiments))]


def blanks(text: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(text) if name is not None}


@pytest.mark.parametrize("area", AREAS, ids=lambda area: area.name)
def test_every_language_has_every_text_with_the_same_blanks(area: Path) -> None:
    vi = read_texts(area / "texts", "vi")
    for code in LANGUAGES:
        known = read_texts(area / "texts", code)
        assert known.keys() == vi.keys()
        for name, text in known.items():
            assert text.strip(), name
            assert blanks(text) == blanks(vi[name]), name


@pytest.mark.parametrize("area", AREAS, ids=lambda area: area.name)
def test_every_text_that_a_page_names_is_there_and_no_other(area: Path) -> None:
    """A name is written as a whole, or as the beginning of a group of names."""
    users = AREAS if area == SHARED else [area, SHARED]
    sources = [path for one in users for path in (*one.glob("*.py"), *one.glob("templates/*"))]
    written = "\n".join(path.read_text(encoding="utf-8") for path in sources)
    named = set(re.findall(r"[\"']([a-z_]+\.[\w.]+)[\"']", written))
    groups = set(re.findall(r"[\"']([a-z_]+)\.(?:[\"'] ~|\{)", written))
    groups |= set(re.findall(r"known\(\s*[\"']([a-z_]+)[\"']", written))
    known = read_texts(area / "texts", "en").keys()
    assert [name for name in known if name not in named and name.split(".")[0] not in groups] == []
    called = set(re.findall(r"\b(?:t|say|count)\(\s*[\"'](\w+\.[\w.]*\w)[\"']", written))
    if area != SHARED:
        assert called <= known | read_texts(SHARED / "texts", "en").keys()


def test_every_check_of_drift_has_a_sentence_for_each_state() -> None:
    known = read_texts(Path(drift.__file__).parent / "texts", "vi")
    checks = {name.split(".")[1] for name in known if name.startswith("check.")}
    assert len(checks) == 13
    for check in checks:
        assert {
            f"said.{check}.{state}" for state in STATES if state != "not_judged"
        } <= known.keys()
        assert {f"do.{check}", f"unit.{check}"} <= known.keys()
