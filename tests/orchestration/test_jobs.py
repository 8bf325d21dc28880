"""What a run may be asked for with."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from recsys.errors import InputError
from recsys.orchestration.jobs import refuse_bad_request

PARAMS = ("dry_run", "force")


def asked(**changes):
    """A run of a deployment, as Airflow hands it to a task."""
    fields = {"dag_id": "model_deployment", "run_id": "manual__1", "conf": None}
    fields |= {"data_interval_end": None, "logical_date": None}
    return SimpleNamespace(**{**fields, **changes})


@pytest.mark.parametrize("conf", [None, {}, {"dry_run": True}, {"dry_run": False, "force": True}])
def test_a_job_takes_its_parameters(conf):
    refuse_bad_request(asked(conf=conf), PARAMS)


@pytest.mark.parametrize("key", ["dryrun", "DRY_RUN", "dry-run", ""])
def test_a_key_that_is_no_parameter_is_refused_with_those_that_are(key):
    with pytest.raises(InputError) as refused:
        refuse_bad_request(asked(conf={"dry_run": True, key: True}), PARAMS)
    expected = f"conf: {key!r} is no parameter of model_deployment; it has dry_run, force"
    assert str(refused.value) == expected


def test_a_job_without_parameters_says_so():
    with pytest.raises(InputError, match="it has none"):
        refuse_bad_request(asked(conf={"x": 1}), ())


@pytest.mark.parametrize("name", ["data_interval_end", "logical_date"])
def test_a_day_that_is_to_come_is_refused(name):
    moment = datetime.now(UTC)
    refuse_bad_request(asked(**{name: moment}), PARAMS)
    with pytest.raises(InputError, match="in the future, at"):
        refuse_bad_request(asked(**{name: moment + timedelta(hours=1)}), PARAMS)
