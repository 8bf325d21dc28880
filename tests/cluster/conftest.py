"""One cluster for all tests of this folder."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from recsys.data.sample import write_sample_shop
from recsys.schedule import load_schedule
from recsys.settings import REPOSITORY, Settings
from tests.cluster.native import Cluster, running_cluster
from tests.live_stack import wait_for

# Long enough to be interrupted.
TUNING_SECONDS = 6


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """All jobs unpaused and without a schedule, a small shop, a short search for parameters."""
    settings = Settings(tmp_path_factory.mktemp("cluster") / "home")
    write_sample_shop(settings.raw / "viecomrec", reviews=6000)
    _configure(settings.home / "config")
    with running_cluster(settings) as running:
        jobs = set(load_schedule(settings).jobs)
        wait_for(lambda: jobs <= running.client.dags().keys(), 90, "the DAGs are read")
        for job in sorted(jobs):
            running.client.unpause(job)
        yield running


def _configure(folder: Path) -> None:
    folder.mkdir(parents=True)
    originals = REPOSITORY / "config"
    schedule = json.loads((originals / "scheduler_config.json").read_text(encoding="utf-8"))
    for timing in schedule["jobs"].values():
        timing["enabled"] = False
    (folder / "scheduler_config.json").write_text(json.dumps(schedule))
    training = yaml.safe_load((originals / "training.yaml").read_text(encoding="utf-8"))
    training["tuning"]["seconds"] = TUNING_SECONDS
    training["model_types"] = ["als", "item_knn"]
    (folder / "training.yaml").write_text(yaml.safe_dump(training))
