"""What ``--help`` says on a screen of 80 columns."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from recsys.cli import app

WIDTH = 80


def words_of(command: Any, before: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """How each command is called, and each group of them."""
    yield before
    for name, one in getattr(command, "commands", {}).items():
        yield from words_of(one, (*before, name))


CALLED = [one for one in words_of(typer.main.get_command(app)) if one != ("airflow",)]


@pytest.mark.parametrize("words", CALLED, ids=" ".join)
def test_help_is_whole_and_its_lines_are_full(words: tuple[str, ...]) -> None:
    done = CliRunner().invoke(app, [*words, "--help"], env={"COLUMNS": str(WIDTH), "NO_COLOR": "1"})
    assert done.exit_code == 0
    lines = [line.rstrip() for line in done.stdout.splitlines()]
    assert max(map(len, lines)) <= WIDTH
    assert "…" not in done.stdout
    for line, following in pairwise(lines):
        if line[:1] == following[:1] == " ":  # a paragraph that goes on: no word had room any more
            assert len(line) + 1 + len(following.split()[0]) >= WIDTH


def test_a_switch_has_no_opposite_that_says_nothing() -> None:
    for words in CALLED:
        shown = CliRunner().invoke(app, [*words, "--help"]).stdout
        assert "[default: no-" not in shown
