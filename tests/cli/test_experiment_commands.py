import json
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from typer.testing import CliRunner

from benchmarks.experiments.sequential import simulate
from recsys.cli import app
from recsys.errors import InputError
from recsys.experiments.evaluation import evaluate
from recsys.experiments.state import Experiments
from tests.cli.test_airflow_answers import airflow, dag, page  # noqa: F401 (a fixture)
from tests.experiments.test_evaluation import SHOP, write_days
from tests.serving.shops import add_model

DEFINITION = """
name: blend
question: Does the second model bring more clicks?
primary_metric: clicks_per_list
smallest_effect: 0.2
variants:
  - {name: today, share: 0.5}
  - {name: second, share: 0.5, model_id: als_2}
"""


@pytest.fixture
def definition(settings, tmp_path, monkeypatch):
    monkeypatch.setenv("RECSYS_HOME", str(settings.home))
    add_model(settings, "als_1")
    add_model(settings, "als_2", select=False)
    path = tmp_path / "blend.yaml"
    path.write_text(DEFINITION)
    return path


def run(*arguments) -> dict | list:
    done = CliRunner().invoke(app, ["experiment", *map(str, arguments)])
    if done.exception is not None:
        raise done.exception
    return json.loads(done.stdout)


def the_past(settings) -> None:
    first = (datetime.now(UTC) - timedelta(days=28)).date()
    visits = simulate(np.random.default_rng(5), SHOP, 28)
    write_days(settings, visits, name="", names=("", ""), first=first)


def test_an_experiment_is_planned_started_looked_at_and_stopped(settings, definition):
    with pytest.raises(InputError, match="the last 0 days"):
        run("plan", definition)
    the_past(settings)
    planned = run("plan", definition)
    assert planned["days"] % 7 == 0
    started = run("start", definition)
    assert started["planned_days"] == planned["days"]
    [row] = run("status")
    assert (row["name"], row["running"], row["verdict"]) == ("blend", True, None)
    assert row["sides"] == {"today": None, "second": "als_2"}
    evaluate(settings, datetime.now(UTC))
    assert run("status", "blend")[0]["verdict"] == "running"
    assert run("stop", "blend", "--because", "a sale begins") == {
        "experiment": "blend",
        "stopped": True,
    }
    assert run("status", "blend")[0]["ended_because"] == "a sale begins"


def test_what_cannot_start_says_why(settings, definition):
    definition.write_text(DEFINITION.replace("0.5, model_id: als_2", "0.6, model_id: als_2"))
    with pytest.raises(InputError, match=r"the shares add up to 1\.1"):
        run("start", definition)
    definition.write_text(DEFINITION.replace("als_2", "als_9"))
    with pytest.raises(InputError, match="'als_9': no model of this id"):
        run("start", definition)
    with pytest.raises(InputError, match="no experiment of this name"):
        run("stop", "blend")
    assert run("status") == []


def test_what_is_refused_is_refused_before_anything_is_planned(settings, definition):
    run("start", definition)
    other = DEFINITION.replace("name: blend", "name: other")
    for text, problem in (
        (DEFINITION, "of this name was started at"),
        (other, "experiment blend runs on all placements"),
        (other.replace("als_2", "als_9"), "'als_9': no model of this id"),
    ):
        definition.write_text(text)
        done = CliRunner().invoke(app, ["experiment", "start", str(definition)])
        assert problem in str(done.exception)
        assert "plan" not in done.output


def test_what_runs_without_a_stack_asks_for_none(settings, definition):
    done = CliRunner().invoke(app, ["experiment", "status"])
    assert (json.loads(done.stdout), done.stderr) == ([], "")


def test_the_winner_is_deployed_and_the_experiment_ends(settings, definition, airflow):  # noqa: F811
    run("start", definition)
    with pytest.raises(InputError, match="no side has won yet"):
        run("promote", "blend")
    with pytest.raises(InputError, match="'third' is no side; expected one of today, second"):
        run("promote", "blend", "--variant", "third")
    ended = {"state": "success", "duration": 2.0, "dag_run_id": "r"}
    asked: list[dict] = []
    runs = "/dags/model_deployment/dagRuns"

    class AnyRun(dict):
        """The run's id is the command's own."""

        def __missing__(self, key):
            method, path = key
            if path.endswith("/taskInstances"):
                return [page("task_instances")]
            if path.endswith("/~/xcomEntries"):
                return [page("xcom_entries")]
            asked.append({"method": method, "path": path})
            return [(200, ended)]

    airflow.answers = AnyRun(
        airflow.answers
        | {
            ("GET", "/dags"): [page("dags", dag("model_deployment", paused=False))],
            ("POST", runs): [(200, {})],
            # An API server that is busy for a moment loses no run that was asked for.
            ("GET", runs): [(503, {"detail": "later"})],
            ("GET", "/monitor/health"): [(200, {"scheduler": {"status": "healthy"}})],
        }
    )
    promoted = run("promote", "blend", "--variant", "second")
    assert promoted["promoted"] == "second"
    assert promoted["deployment"]["state"] == "success"
    assert asked[0]["path"].startswith(runs)
    assert Experiments(settings).get("blend").ended_because == "second was promoted"
    audit = (settings.logs / "experiment_audit.log").read_text()
    assert "promote | name=blend" in audit
    assert "model_id=als_2" in audit


def test_a_deployment_that_fails_leaves_the_experiment_running(settings, definition, airflow):  # noqa: F811
    run("start", definition)
    airflow.answers |= {
        ("GET", "/dags"): [page("dags", dag("model_deployment", paused=True))],
    }
    with pytest.raises(InputError, match="model_deployment is paused"):
        run("promote", "blend", "--variant", "second")
    assert Experiments(settings).get("blend").running


@pytest.mark.parametrize("command", ["archive", "delete"])
def test_a_model_that_an_experiment_needs_stays(settings, definition, monkeypatch, command):
    monkeypatch.setenv("RECSYS_SERVICE_URL", "http://127.0.0.1:9")
    run("start", definition)
    done = CliRunner().invoke(app, ["registry", command, "als_2"])
    assert "an experiment that runs needs it" in str(done.exception)
