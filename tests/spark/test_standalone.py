"""A refresh and ALS on a standalone cluster whose workers share nothing with it but a bucket."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import numpy as np
import pytest

from recsys.settings import Settings
from tests.data.shop import refresh, write_shop
from tests.models.shop import GROUPS, ITEMS
from tests.spark.cluster import CONFIG, java_is_missing, use_spark
from tests.spark.machines import Machine, network
from tests.spark.standalone import Standalone, standalone
from tests.spark.test_refresh_and_als import assert_same_quarantine, assert_same_version, dirty_rows
from tests.storage.buckets import CREDENTIALS, machine, new_bucket, objects, s3_server

pytestmark = [pytest.mark.boots, pytest.mark.timeout(600)]

MEMORY_MB = 1024
END_SECONDS = 300

# Work begins when both are there.
SPARK = """
master: {master}
properties:
  spark.scheduler.minRegisteredResourcesRatio: "1.0"
  spark.scheduler.maxRegisteredResourcesWaitingTime: 120s
"""

REFRESH = """
import sys
from pathlib import Path
from recsys.settings import Settings
from recsys.spark import refresh
from tests.data.shop import refresh as run
refresh.PIECE_BYTES = 8_000
run(Settings(Path(sys.argv[1])))
"""

TRAIN = """
import sys
from pathlib import Path
import numpy as np
from recsys.data.config import Engine
from recsys.models.als import Als, AlsParameters
from recsys.settings import Settings
from recsys.spark.als import als_trainer
from tests.models.shop import ITEMS, taste_histories
# More iterations than a lineage is cut after, where there is a disk to cut it on.
parameters = AlsParameters(factors=8, starts=1, iterations=12)
with als_trainer(Engine.SPARK, Settings(Path(sys.argv[1]))) as trainer:
    model = Als(parameters).trained_by(trainer).fit(taste_histories(), ITEMS)
np.save(sys.argv[2], model.item_vectors)
"""


@dataclass(frozen=True)
class Cluster:
    """`settings` are the driver's, of whose state root the `workers` see nothing."""

    settings: Settings
    workers: list[Machine]
    master: Standalone
    service: str
    bucket: str

    @contextmanager
    def driver(self, script: str, *arguments: str) -> "Iterator[subprocess.Popen[str]]":
        """A process that runs `script` for the block, and has done so well at its end."""
        process = subprocess.Popen(
            [sys.executable, "-c", script, str(self.settings.home), *arguments],
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | self.master.secret | {"PYTHONPATH": os.pathsep.join(sys.path)},
            start_new_session=True,
        )
        try:
            yield process
            _, said = process.communicate(timeout=END_SECONDS)
            assert process.returncode == 0, said
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def on_the_shelf(self, folder: str) -> int:
        """How many files of a step's shelf are in the bucket."""
        return sum(f"-shelf/{folder}/" in key for key in objects(self.service, self.bucket))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    if java_is_missing():
        pytest.skip("there is no java on this machine")
    folder = tmp_path_factory.mktemp("standalone")
    disk = folder / "disk"
    disk.mkdir()
    with ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
        for name, value in CREDENTIALS.items():
            patch.setenv(name, value)
        machines = stack.enter_context(network(["one", "two"], disk))
        service = stack.enter_context(s3_server(folder / "s3.log", host=machines.address))
        master = stack.enter_context(standalone(folder, machines.address))
        for worker in machines.machines:
            start = master.worker(
                worker.name, worker.address, MEMORY_MB, disk / "spark", worker.prefix
            )
            stack.enter_context(start)
        bucket = new_bucket(service)
        settings = machine(disk / "driver", bucket, service)
        use_spark(settings, SPARK.format(master=master.address))
        yield Cluster(settings, machines.machines, master, service, bucket)


def test_a_worker_that_is_killed_in_mid_stage_costs_nothing_but_time(cluster, tmp_path):
    plain = Settings(tmp_path / "plain")
    for settings in (plain, cluster.settings):
        write_shop(settings, dirty_rows())
    with cluster.driver(REFRESH) as driver:
        while not cluster.on_the_shelf("rows") and driver.poll() is None:
            time.sleep(0.05)
        cluster.workers[1].kill()
        assert driver.poll() is None
        assert cluster.on_the_shelf("rows") < cluster.on_the_shelf("lent")
        refresh(plain)
    assert_same_version(cluster.settings, plain)
    assert_same_quarantine(cluster.settings, plain)
    assert not [key for key in objects(cluster.service, cluster.bucket) if "-shelf" in key]
    assert not list(cluster.settings.work.iterdir())


def test_als_needs_no_common_disk_for_many_iterations(cluster, tmp_path):
    # Of the two workers one is left.
    own = cluster.settings.home / "config" / "spark.yaml"
    own.write_text(f"{CONFIG}master: {cluster.master.address}\n")
    with cluster.driver(TRAIN, str(tmp_path / "vectors.npy")):
        pass
    vectors = np.load(tmp_path / "vectors.npy")
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    nearest = np.argsort(-(vectors @ vectors.T), axis=1)[:, 1:7]
    assert (nearest % GROUPS == (np.arange(ITEMS) % GROUPS)[:, None]).mean() > 0.8
