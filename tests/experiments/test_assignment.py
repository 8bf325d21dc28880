"""Nobody changes sides: what `Assignment.assign` says follows from unit and experiment alone."""

import math
import subprocess
import sys
from collections import Counter
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from recsys.experiments.definitions import (
    Assignment,
    Definition,
    Experiment,
    Lot,
    Side,
    read_definition,
)
from recsys.experiments.statistics import RATIO_ALPHA, ratio_evidence
from recsys.settings import REPOSITORY

NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)


def experiment(
    name: str = "blend",
    shares: tuple[float, ...] = (0.5, 0.5),
    placements: tuple[str, ...] = (),
    metric: str | None = "clicks_per_list",
) -> Experiment:
    sides = ({"name": f"side{number}", "share": share} for number, share in enumerate(shares))
    definition = Definition.model_validate(
        {
            "name": name,
            "question": "Is it better?",
            "variants": list(sides),
            "placements": placements,
            "primary_metric": metric,
        }
    )
    return Experiment(
        definition=definition, salt=f"{name}:{NOON}", started_at=NOON, started_by="an"
    )


units = st.text(min_size=1, max_size=20)
shares = st.lists(st.floats(0.01, 1), min_size=1, max_size=8).map(
    lambda sizes: [size / max(1.0, sum(sizes)) for size in sizes]
)


@given(units, shares, st.sets(st.sampled_from(["home", "cart", "mail"]), max_size=3))
def test_others_that_start_and_end_move_nobody(unit, parts, placements):
    ours = experiment("ours", (0.3, 0.4), ("detail",))
    alone = Assignment([ours]).assign(unit, "detail")
    other = experiment("other", (0.5, 0.5), tuple(placements) or ("home",))
    canary = experiment("canary", (parts[0],), metric=None)
    for beside in ([other], [canary], [other, canary]):
        for order in ([ours, *beside], [*beside, ours]):
            found = Assignment(order).assign(unit, "detail")
            assert found == alone or (alone is None and found.experiment == "canary")


@given(units, shares)
def test_a_side_stays_through_what_is_written_and_read(unit, parts):
    ours = experiment(shares=tuple(parts) if len(parts) > 1 else (*parts, 1e-9))
    again = Experiment.model_validate_json(ours.model_dump_json())
    assert Assignment([again]).assign(unit) == Assignment([ours]).assign(unit)


@given(st.lists(units, min_size=20, max_size=20), st.data())
def test_sides_that_grow_keep_whom_they_have(names, data):
    count = data.draw(st.integers(1, 6))
    later = [data.draw(st.floats(0.001, 1 / count)) for _ in range(count)]
    before = [data.draw(st.floats(0.0005, share)) for share in later]
    sides = [Side("e", str(number)) for number in range(count)]
    small, large = (Lot("e", list(zip(sides, sizes, strict=True))) for sizes in (before, later))
    for name in names:
        if (side := small.draw(name)) is not None:
            assert large.draw(name) == side


def test_a_canary_that_grows_keeps_its_users():
    names = [f"user {number}" for number in range(5000)]
    lots = [Lot("c", [(Side("canary", "canary"), share)]) for share in (0.1, 0.5, 1.0)]
    groups = [{name for name in names if lot.draw(name)} for lot in lots]
    assert groups[0] < groups[1] < groups[2]
    assert groups[2] == set(names)


@pytest.mark.parametrize(
    "sizes", [(0.5, 0.5), (0.9, 0.1), (0.05, 0.05), (0.2, 0.3, 0.1), (0.7, 0.1, 0.1, 0.1)]
)
def test_every_side_gets_its_share(sizes):
    sides = [Side("e", str(number)) for number in range(len(sizes))]
    lot = Lot("salt", list(zip(sides, sizes, strict=True)))
    drawn = Counter(lot.draw(f"user-{number}") for number in range(20_000))
    counts = [drawn[side] for side in sides]
    for got, share in zip(counts, sizes, strict=True):
        assert got / 20_000 == pytest.approx(share, abs=0.012)
    expected = [share / sum(sizes) for share in sizes]
    assert ratio_evidence(counts, expected) < -math.log(RATIO_ALPHA)


def test_experiments_do_not_follow_each_other():
    """Who is on the first side of one is as likely as anybody to be on the first of another."""
    one, other = Assignment([experiment("one")]), Assignment([experiment("other")])
    pairs = Counter(
        (one.assign(str(unit)).variant, other.assign(str(unit)).variant) for unit in range(8000)
    )
    assert all(count == pytest.approx(2000, abs=200) for count in pairs.values())


def test_the_holdout_comes_first_and_is_the_same_with_every_experiment():
    alone = Assignment([], 0.2)
    beside = Assignment([experiment()], 0.2)
    kept = [str(unit) for unit in range(3000) if alone.assign(str(unit))]
    assert len(kept) == pytest.approx(600, abs=90)
    assert {alone.assign(unit) for unit in kept} == {Side("holdout", "popularity")}
    assert all(beside.assign(unit) == Side("holdout", "popularity") for unit in kept)


def test_another_process_draws_the_same():
    program = (
        "from recsys.experiments.definitions import *;"
        "lot = Lot('salt', [(Side('e', 'a'), .3), (Side('e', 'b'), .3)]);"
        "print([lot.draw(f'khách {n}') for n in range(50)])"
    )
    said = [
        subprocess.run(
            [sys.executable, "-c", program],
            cwd=REPOSITORY / "include",
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": "."},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert said[0] == said[1]
    assert "'a'" in said[0]
    assert "None" in said[0]


def test_only_lists_of_its_placements_belong_to_an_experiment():
    both = Assignment([experiment("home", placements=("home",)), experiment("mail", (1e-9, 1))])
    assert both.assign("1", "home").experiment == "home"
    assert not Assignment([experiment(placements=("home",))]).assign("1", "detail")
    assert not Assignment([])


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"variants": [{"name": "a", "share": 0.6}, {"name": "b", "share": 0.5}]}, "add up to 1.1"),
        (
            {"variants": [{"name": "a", "share": 0.5}, {"name": "a", "share": 0.5}]},
            "each name once",
        ),
        ({"variants": [{"name": "a", "share": 0.5}]}, "at least one other side"),
        ({"question": " "}, "expected a sentence"),
        ({"name": "Home Page"}, "name"),
        ({"primary_metric": "stars"}, "primary_metric"),
        (
            {"variants": [{"name": "a", "share": 0.5, "model_id": "x", "model_type": "y"}] * 2},
            "exclude each other",
        ),
    ],
)
def test_what_makes_no_sense_is_no_definition(change, expected):
    content = experiment().definition.model_dump() | change
    with pytest.raises(ValidationError, match=expected):
        Definition.model_validate(content)


def test_a_definition_is_read_from_a_file(tmp_path):
    path = tmp_path / "blend.yaml"
    path.write_text(
        "name: blend\nquestion: Does the blend sell more?\nprimary_metric: clicks_per_list\n"
        "variants:\n- {name: today, share: 0.5}\n- {name: blend, share: 0.5, model_type: hybrid}\n"
    )
    assert read_definition(path).control.name == "today"
    path.write_text(path.read_text().replace("share: 0.5,", "sahre: 0.5,"))
    with pytest.raises(Exception, match=r"blend.yaml: variants.1.*"):
        read_definition(path)
