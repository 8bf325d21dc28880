"""The benchmarks, where the figures of the pages come from, start as pages and docstrings say."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache

import pytest

from recsys.settings import REPOSITORY

SOURCES = sorted((REPOSITORY / "benchmarks").glob("*/[a-z]*.py"))
MODULES = [".".join(path.relative_to(REPOSITORY).with_suffix("").parts) for path in SOURCES]
PAGES = [*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").rglob("*.md"), *SOURCES]

# Imports each module and asks those with options for their help: exit status, and what was said.
_ASK = """
import contextlib, importlib, io, json, sys, traceback
answers = {}
for name in sys.argv[1:]:
    said, status = io.StringIO(), 0
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            module = importlib.import_module(name)
            if hasattr(module, "argparse"):
                sys.argv = [name, "--help"]
                module.main()
        except SystemExit as end:
            status = end.code
        except Exception:
            traceback.print_exc()
            status = 1
    answers[name] = status, said.getvalue()
print(json.dumps(answers))
"""


@cache
def answers() -> dict[str, tuple[int, str]]:
    """What all benchmarks say, asked in one process: what they import is imported once."""
    command = [sys.executable, "-c", _ASK, *MODULES]
    done = subprocess.run(command, cwd=REPOSITORY, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, tuple[int, str]] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("module", MODULES)
def test_a_benchmark_can_be_imported_and_tells_its_options(module: str) -> None:
    status, said = answers()[module]
    assert status == 0, said


def quoted() -> Iterator[tuple[str, str, set[str]]]:
    """Where a benchmark is named, its module, and the options given to it there."""
    for page in PAGES:
        place = str(page.relative_to(REPOSITORY))
        text = page.read_text(encoding="utf-8")
        for path in re.findall(r"\bbenchmarks/\w+/\w+(?=\.py)", text):
            yield place, path.replace("/", "."), set()
        for module, rest in re.findall(r"-m (benchmarks[\w.]*)([^\n`#]*)", text):
            yield place, module, set(re.findall(r"--[\w-]+", rest))


def test_the_pages_name_benchmarks_and_options_that_exist() -> None:
    known = {
        module: set(re.findall(r"^  (--[\w-]+)", said, re.MULTILINE))
        for module, (_, said) in answers().items()
    }
    named = list(quoted())
    assert len(named) > len(MODULES) // 2
    unknown = [
        f"{place}: {module} {' '.join(sorted(options - known.get(module, set())))}"
        for place, module, options in named
        if module not in known or not options <= known[module]
    ]
    assert unknown == []


def test_a_benchmark_is_started_as_a_module() -> None:
    """As a file it would not find the others, nor what it shares with the tests."""
    files = [page for page in PAGES if "python benchmarks/" in page.read_text(encoding="utf-8")]
    assert files == []


@pytest.mark.boots
@pytest.mark.parametrize(
    "command",
    [
        "loop.crashes --kills 2 --job-kills 1 --seconds 2",
        "orchestration.listener --changes 2",
        "privacy.kills --kills 3",
        "tracking.throughput --processes 2 --runs 2",
    ],
)
def test_a_benchmark_with_a_small_form_runs_to_its_end(command: str) -> None:
    words = [sys.executable, "-m", *f"benchmarks.{command}".split()]
    done = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
