"""Replicas with a bucket between them: one state, and everybody on the same side in each."""

from collections.abc import Callable

import pytest

from recsys.experiments.state import Experiments
from recsys.settings import Settings
from recsys.upkeep.transfer import pull_state
from tests.experiments.test_state import definition
from tests.serving.shops import add_model
from tests.serving.test_experiments import expected, follow, served, service

pytestmark = pytest.mark.boots


def test_what_one_machine_starts_every_replica_serves(join: Callable[[str], Settings]):
    one, two, three = join("one"), join("two"), join("three")
    add_model(one, "als_1")
    add_model(one, "als_2", seed=1, select=False)
    Experiments(one).start(definition(), by="lan")
    wanted = expected(Experiments(one))
    assert set(wanted.values()) == {"als_1", "als_2"}
    with service(two) as first, service(three) as second:
        assert served(first) == served(second) == wanted
        Experiments(one).stop("blend", by="minh", because="done")
        for client in (first, second):
            follow(client)
            assert set(served(client).values()) == {"als_1"}
    pull_state(two)
    assert (two.home / "artifacts" / "experiments.json").exists()


def test_two_machines_that_start_at_once_lose_nothing(join: Callable[[str], Settings]):
    machines = [join(name) for name in ("one", "two")]
    add_model(machines[0], "als_1")
    add_model(machines[0], "als_2", select=False)
    for number in range(4):
        placed = definition(f"e{number}", placements=(f"p{number}",))
        Experiments(machines[number % 2]).start(placed, by="lan")
    for settings in machines:
        assert [one.name for one in Experiments(settings).running()] == ["e0", "e1", "e2", "e3"]
