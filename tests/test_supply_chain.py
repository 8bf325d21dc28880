"""What is installed is what is written down: pinned, with digests and licences."""

import re
import subprocess
from pathlib import Path

import pytest

from recsys.settings import REPOSITORY

SOURCES = sorted(REPOSITORY.glob("requirements*.in"))
TORCH = REPOSITORY / "requirements-torch.txt"
SHIPPED = ("requirements.txt", "requirements-torch.txt", "requirements-cluster.txt")
ENTRY = re.compile(r"^([A-Za-z0-9._-]+)==(\S+)((?: \\\n    --hash=sha256:[0-9a-f]{64})*)$", re.M)
# Of what may be asked of who passes the image on: nothing, or the text of the licence.
GENEROUS = re.compile(r"MIT|BSD|Apache|ISC|Python|PSF|Unlicense|MPL|Mozilla|Zlib|CNRI|CC0|License")
# python-slugify, which Airflow needs, takes it under the Artistic licence; the driver is linked to.
KNOWN = {"text-unidecode", "psycopg2-binary"}


def locked(path: Path) -> dict[str, tuple[str, str]]:
    """Package -> version and the lines of its digests; every line of the file is understood."""
    text = path.read_text(encoding="utf-8")
    rest = ENTRY.sub("", text)
    assert not [line for line in rest.splitlines() if line.strip() and "#" not in line]
    return {name: (version, digests) for name, version, digests in ENTRY.findall(text)}


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_every_package_of_a_lock_file_is_pinned_with_digests(source):
    path = source.with_suffix(".txt")
    assert path.read_text(encoding="utf-8").splitlines()[1] == "#    make lock"
    packages = locked(path)
    assert packages
    assert not [name for name, (_, digests) in packages.items() if not digests]
    assert "torch" not in packages


def test_one_rule_locks_every_file_and_the_one_that_others_keep_to_first():
    shown = subprocess.run(
        ["make", "--dry-run", "--old-file", ".venv/.installed-dev", "lock"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    (files,) = re.findall(r"for file in (.*); do", shown)
    assert sorted(files.split()) == sorted(path.name for path in SOURCES)
    assert files.split()[0] == "requirements.in"


def test_files_that_are_installed_together_agree():
    pins: dict[str, set[str]] = {}
    together = [*SHIPPED, "requirements-dev.txt", "requirements-spark.txt"]
    for name in [*together, "requirements-service.txt"]:
        for package, (version, _) in locked(REPOSITORY / name).items():
            pins.setdefault(package, set()).add(version)
    assert {package: found for package, found in pins.items() if len(found) > 1} == {}


def test_torch_is_pinned_apart_with_what_only_it_needs():
    apart = locked(TORCH)
    assert {"torch", "sympy", "networkx", "mpmath"} <= apart.keys()
    assert not apart.keys() & locked(REPOSITORY / "requirements.txt").keys()


def test_everything_that_is_shipped_has_a_licence_that_lets_us():
    page = (REPOSITORY / "docs" / "licences.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| (\S+) \| (.+) \|$", page, re.M))
    licences = {re.sub(r"[-_.]+", "-", name).lower(): text for name, text in rows.items()}
    shipped = {name for file in SHIPPED for name in locked(REPOSITORY / file)}
    # Only on Python before 3.11.3.
    assert shipped - licences.keys() - {"async-timeout"} == set()
    strict = {name for name, text in licences.items() if re.search("GPL|UNKNOWN", text)}
    assert strict == KNOWN
    assert not [name for name, text in licences.items() if not GENEROUS.search(text)]
