"""One cluster for all tests of this folder, on machines that share nothing but a bucket."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from recsys.data.sample import write_sample_shop
from recsys.schedule import load_schedule
from recsys.settings import REPOSITORY
from recsys.upkeep.transfer import push_state
from tests.cluster.native import Cluster, running_cluster
from tests.cluster.shape import MACHINES, MAIN, RECORDS_QUEUE
from tests.live_stack import wait_for
from tests.storage.buckets import CREDENTIALS, machine, new_bucket, s3_server

# Long enough to be interrupted.
TUNING_SECONDS = 6
# They read or write files that do not travel, see docs/storage.md.
RECORDS_JOBS = ("health_check", "maintenance")


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """All jobs unpaused and without a schedule, a small shop, a short search for parameters."""
    folder = tmp_path_factory.mktemp("cluster")
    with pytest.MonkeyPatch.context() as patch, s3_server(folder / "s3.log") as address:
        for name, value in CREDENTIALS.items():
            patch.setenv(name, value)
        bucket = new_bucket(address)
        machines = {name: machine(folder / name, bucket, address) for name in MACHINES}
        for settings in machines.values():
            _configure(settings.home / "config")
        main = machines[MAIN]
        write_sample_shop(main.raw / "viecomrec", reviews=6000)
        push_state(main)
        onlooker = machine(folder / "onlooker", bucket, address)
        with running_cluster(machines, onlooker) as running:
            jobs = set(load_schedule(main).jobs)
            wait_for(lambda: jobs <= running.client.dags().keys(), 90, "the DAGs are read")
            for job in sorted(jobs):
                running.client.unpause(job)
            yield running


def _configure(folder: Path) -> None:
    originals = REPOSITORY / "config"
    schedule = json.loads((originals / "scheduler_config.json").read_text(encoding="utf-8"))
    for timing in schedule["jobs"].values():
        timing["enabled"] = False
    for job in RECORDS_JOBS:
        schedule["jobs"][job]["queue"] = RECORDS_QUEUE
    (folder / "scheduler_config.json").write_text(json.dumps(schedule))
    training = yaml.safe_load((originals / "training.yaml").read_text(encoding="utf-8"))
    training["tuning"]["seconds"] = TUNING_SECONDS
    training["model_types"] = ["als", "item_knn"]
    (folder / "training.yaml").write_text(yaml.safe_dump(training))
