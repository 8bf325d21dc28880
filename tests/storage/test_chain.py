"""A shop on two machines: one makes data and models, the other serves; a bucket is between them."""

import json
import time
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime, timedelta
from multiprocessing import get_context

import psutil
import pytest
import requests

from recsys.comments import CommentConfig, score_view
from recsys.config import load_config
from recsys.content.embeddings import current_embeddings
from recsys.content.job import build_embeddings
from recsys.data.retention import referenced_versions
from recsys.data.staging import append_events, hand_in_files, hand_in_segments
from recsys.data.versions import current_version, list_versions, open_version, published_folder
from recsys.deployment.history import append_history, read_history
from recsys.health.data import check_data_health
from recsys.models.artifacts import load_artifact
from recsys.refresh import ingest, open_workspace, publish, score_comments
from recsys.registry import Registry
from recsys.settings import Settings
from recsys.storage import open_store
from recsys.training.job import plan_training, select_best, train_model
from recsys.upkeep.job import clean_models
from recsys.upkeep.transfer import push_state
from tests.comments.conftest import make_shop, make_view  # noqa: F401
from tests.data.shop import END, interval, refresh, row, write_shop
from tests.live_stack import wait_for as eventually
from tests.models.shop import ITEMS, taste_interactions
from tests.ports import find_free_port
from tests.serving.service_process import running_service, start_service, wait_for
from tests.serving.shops import add_model
from tests.storage.buckets import (
    CREDENTIALS,
    machine,
    new_bucket,
    objects,
    put_object,
    s3_server,
)
from tests.upkeep.ageing import aged
from tests.upkeep.test_backup import recsys

pytestmark = pytest.mark.boots

CATALOGUE = [
    f"p{item},Kem dưỡng {item},Cocoon,Loại {item % 6},10{item}000,Dưỡng ẩm cho da {item % 6}"
    for item in range(ITEMS)
]


@pytest.fixture
def jobs(join):
    """The machine that runs the jobs."""
    settings = join("jobs")
    (settings.home / "config" / "training.yaml").write_text(
        "model_types: [als]\ntuning: {seconds: 60, trials: 2}\n"
    )
    return settings


@pytest.fixture
def front(join):
    """The machine that serves; its state root is empty."""
    return join("front")


def shop_rows():
    table = taste_interactions()
    times = [datetime.fromtimestamp(time, UTC) for time in table["time"]]
    return [
        row(
            f"u{user}",
            f"p{item}",
            4 + (user + item) % 2,
            time=f"{time:%Y-%m-%d %H:%M:%S}",
            comment=f"tốt {user} {item}",
        )
        for user, item, time in zip(table["user"], table["item"], times, strict=True)
    ]


def answers(port):
    found = []
    for user in ("u1", "u2", "u7", "stranger"):
        body = {"user_id": user, "topk": 10}
        answer = requests.post(f"http://127.0.0.1:{port}/recommend", json=body, timeout=20).json()
        found.append((user, answer["model_id"], answer["fallback"], answer["recommendations"]))
    return found


def train(settings):
    return select_best(
        settings,
        [
            train_model(settings, task["model_type"], task["version_id"])
            for task in plan_training(settings)
        ],
    )["model_id"]


def test_what_one_machine_makes_the_other_serves(jobs, front):
    write_shop(jobs, shop_rows(), CATALOGUE)
    version_id = refresh(jobs)["version_id"]
    set_id = build_embeddings(jobs)["set_id"]
    model_id = train(jobs)
    assert model_id is not None
    assert sorted(path.name for path in front.home.iterdir()) == ["config"]

    port = find_free_port()
    with running_service(front, port, catalogue_check_seconds=1):
        assert wait_for(port)["model_id"] == model_id
        served = answers(port)
        assert [answer[1] for answer in served] == [model_id] * 4
        assert [answer[2] for answer in served] == [False, False, False, True]
        here = find_free_port()
        with running_service(jobs, here):
            assert answers(here) == served

        # The next night on the one machine, and the reload on the other.
        write_shop(jobs, [*shop_rows(), row("u1", "p5", time="2025-02-01 10:00:00")], CATALOGUE)
        assert refresh(jobs, END + timedelta(days=1))["published"]
        newer = train(jobs)
        answer = reload(port, newer)
        assert answer.status_code == 200, answer.text
        assert {answer[1] for answer in answers(port)} == {newer}

    assert current_version(front).version_id != version_id
    current = current_embeddings(front)
    assert current is not None
    assert current.set_id == set_id
    health = check_data_health(front)
    assert health["version_id"] == current_version(jobs).version_id
    assert all(health["files"].values())
    # Its only complaint is that the shop's last review is long ago.
    assert "days old" in health["error"]
    assert ";" not in health["error"]
    assert Registry(front).list() == Registry(jobs).list()


def test_events_that_reach_one_machine_are_in_the_next_version_of_the_other(
    jobs, front, bucket, s3_address
):
    write_shop(jobs, [row(f"u{user}", user % 5) for user in range(20)])
    refresh(jobs)
    events = [
        {
            "event_id": f"e{number}",
            "user_id": "new",
            "product_id": f"{number}",
            "rating": 5,
            "timestamp": "2025-02-20T10:00:00+00:00",
        }
        for number in range(3)
    ]
    append_events(front, events)
    hand_in_segments(front)
    assert not list((front.home / "data/staging").rglob("*.jsonl"))
    # Sent again, and handed in by yet another process: an id counts once.
    append_events(front, events[:2])
    hand_in_segments(front)
    assert len([key for key in objects(s3_address, bucket) if "/sealed/" in key]) == 2
    dropped = "user_id,product_id,rating,cmt_date,comment\nfile,3,4,2025-02-21 10:00:00,được\n"
    put_object(s3_address, bucket, "data/staging/files/drop.csv", dropped.encode())

    assert refresh(jobs)["changes"]["new"] == 4
    rows = current_version(front).interactions()
    assert sorted(rows.loc[rows["user_id"] == "new", "product_id"]) == ["0", "1", "2"]
    assert (rows["user_id"] == "file").sum() == 1
    assert not [key for key in objects(s3_address, bucket) if key.startswith("data/staging/")]

    # A third machine takes over the refresh with nothing but the bucket and the raw files.
    third = Settings(jobs.home.with_name("third"))
    (third.home / "config").mkdir(parents=True)
    storage = (jobs.home / "config" / "storage.yaml").read_text()
    (third.home / "config" / "storage.yaml").write_text(storage)
    write_shop(third, [row(f"u{user}", user % 5) for user in range(20)])
    summary = refresh(third)
    assert (summary["changes"]["new"], summary["changes"]["vanished"]) == (0, 0)


def test_a_backfill_on_another_machine_never_moves_the_pointer_backwards(jobs, front):
    rows = [row(f"u{user}", user % 5, time=f"2025-01-{user + 1:02}") for user in range(20)]
    for settings in (jobs, front):
        write_shop(settings, rows)
    latest = refresh(jobs)["version_id"]
    backfill = refresh(front, END - timedelta(days=40))
    assert not backfill["published"]
    assert current_version(front).version_id == current_version(jobs).version_id == latest
    assert list_versions(jobs) == sorted([backfill["version_id"], latest])


def _publish(home, days):
    settings = Settings(home)
    write_shop(settings, [row(f"u{user}", user % 5) for user in range(10)])
    summary = refresh(settings, END + timedelta(days=days), force_full=True)
    # What this machine sees from now on is never earlier than what it published.
    folder = published_folder(settings)
    assert folder is not None
    return summary["version_id"], folder.name


def _register(home, number):
    settings = Settings(home)
    add_model(settings, f"als_{number}", recall=0.1 + number / 100, seed=number)
    append_history(settings, {"model_id": f"als_{number}", "status": "success"})
    return number


def test_publishers_and_registrars_on_two_machines_lose_nothing(jobs, front):
    homes = [jobs.home, front.home]
    with ProcessPoolExecutor(4, mp_context=get_context("spawn")) as pool:
        published = [pool.submit(_publish, homes[day % 2], day) for day in (5, 2, 4, 1)]
        registered = [pool.submit(_register, homes[number % 2], number) for number in range(6)]
        seen = [future.result() for future in published]
        numbers = [future.result() for future in registered]
    latest = max(version_id for version_id, _ in seen)
    for settings in (jobs, front):
        assert current_version(settings).version_id == latest
        assert list_versions(settings) == sorted(version_id for version_id, _ in seen)
        models = {entry.model_id for entry in Registry(settings).list()}
        assert models == {f"als_{number}" for number in numbers}
        deployed = sorted(entry["model_id"] for entry in read_history(settings))
        assert deployed == sorted(models)
        best = Registry(settings).current_best()
        assert best is not None
        assert Registry(settings).problem() is None
    assert all(current >= own for own, current in seen)


def test_a_version_that_a_model_of_another_machine_names_is_kept(jobs, front):
    (jobs.home / "config" / "data.yaml").write_text("source: viecomrec\nkeep_versions: 1\n")
    write_shop(jobs, [row(f"u{user}", user % 5) for user in range(10)])
    first = refresh(jobs)["version_id"]
    add_model(front, "als_1", data_version=first)
    assert first in referenced_versions(jobs)
    second = refresh(jobs, END + timedelta(days=1), force_full=True)["version_id"]
    third = refresh(jobs, END + timedelta(days=2), force_full=True)
    assert third["versions_removed"] == [second]
    assert list_versions(front) == [first, third["version_id"]]
    with pytest.raises(ValueError, match="no data version of this name"):
        open_version(front, second)


def test_a_reader_that_loses_the_race_against_pruning_gets_the_newer_version(
    jobs, front, bucket, s3_address
):
    (jobs.home / "config" / "data.yaml").write_text("source: viecomrec\nkeep_versions: 1\n")
    write_shop(jobs, [row(f"u{user}", user % 5) for user in range(10)])
    for day in range(4):
        refresh(jobs, END + timedelta(days=day), force_full=True)
        assert current_version(front).version_id == current_version(jobs).version_id
    assert len(list_versions(front)) == 1
    copies = [path.name for path in front.versions.iterdir() if path.name[0] != "."]
    assert copies == list_versions(front)
    index = json.dumps({"name": "20200101T000000Z-none"})
    put_object(s3_address, bucket, "data/processed", index.encode())
    with pytest.raises(ValueError, match="does not exist"):
        current_version(front)


def test_a_shop_on_one_machine_moves_into_a_bucket(settings, front, bucket, s3_address):
    write_shop(settings, [row(f"u{user}", user % 5) for user in range(10)])
    append_events(settings, [{"event_id": "e", "user_id": "new", "product_id": "1", "rating": 5.0}])
    first = refresh(settings)["version_id"]
    second = refresh(settings, END + timedelta(days=1), force_full=True)["version_id"]
    set_id = build_embeddings(settings)["set_id"]
    add_model(settings, "als_1", data_version=second)
    append_history(settings, {"model_id": "als_1", "status": "success"})
    config = (front.home / "config" / "storage.yaml").read_text()
    (settings.home / "config").mkdir()
    (settings.home / "config" / "storage.yaml").write_text(config)

    for _ in range(2):  # stopped half way, it can be repeated
        done = recsys(settings.home, "storage", "push")
        assert done.returncode == 0, done.stderr
        summary = json.loads(done.stdout)
    assert summary == {"folders": 4, "files": 5, "pointers": 2}

    assert list_versions(front) == [first, second]
    assert current_version(front).version_id == second
    current = current_embeddings(front)
    assert current is not None
    assert current.set_id == set_id
    best = Registry(front).current_best()
    assert best is not None
    assert best.model_id == "als_1"
    assert [entry["model_id"] for entry in read_history(front)] == ["als_1"]
    assert refresh(front, END + timedelta(days=1))["changes"]["new"] == 0

    add_model(front, "als_2", data_version=second, recall=0.2)
    done = recsys(settings.home, "storage", "push")
    assert done.returncode == 2
    assert "the store has another one" in done.stderr


def test_a_shop_leaves_the_bucket_and_is_backed_up(jobs, front, tmp_path):
    write_shop(jobs, [row(f"u{user}", user % 5) for user in range(10)])
    version_id = refresh(jobs)["version_id"]
    push_state(jobs)
    set_id = build_embeddings(jobs)["set_id"]
    add_model(jobs, "als_1", data_version=version_id)
    append_history(jobs, {"model_id": "als_1", "status": "success"})
    append_events(jobs, [{"event_id": "e", "user_id": "new", "product_id": "1", "rating": 5.0}])
    hand_in_segments(jobs)

    done = recsys(front.home, "storage", "pull")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"folders": 3, "files": 2, "pointers": 2}
    assert recsys(front.home, "backup", str(tmp_path / "b.tar")).returncode == 0
    alone = Settings(tmp_path / "alone")
    (alone.home / "config").mkdir(parents=True)  # the bucket's address is not restored into it
    assert recsys(alone.home, "restore", str(tmp_path / "b.tar")).returncode == 0

    assert not open_store(alone).shared
    assert current_version(alone).version_id == version_id
    current_version(alone).verify()
    current = current_embeddings(alone)
    assert current is not None
    assert current.set_id == set_id
    best = Registry(alone).current_best()
    assert best is not None
    assert best.model_id == "als_1"
    load_artifact(Registry(alone).folder(best))
    assert read_history(alone) == read_history(jobs)
    summary = refresh(alone, datetime.now(UTC) + timedelta(minutes=1))
    assert summary["changes"]["new"] == 1


@pytest.mark.parametrize("command", ["push", "pull"])
def test_without_a_bucket_there_is_nothing_to_move(settings, command):
    done = recsys(settings.home, "storage", command)
    assert done.returncode == 2
    assert "names no bucket" in done.stderr


def run_steps(machines, end=END):
    """The tasks of one refresh, each on a machine; what the last one returns."""
    steps = [
        lambda settings, work: ingest(settings, work, interval(end)),
        score_comments,
        publish,
    ]
    summary = {}
    for settings, step in zip(machines, steps, strict=True):
        with open_workspace(settings, "scheduled__2025") as work:
            summary = step(settings, work)
    return summary


def test_the_steps_of_a_refresh_may_run_on_different_machines(jobs, front, bucket, s3_address):
    write_shop(jobs, [row(f"u{user}", user % 5) for user in range(20)])
    push_state(jobs)  # raw files are in the bucket
    summary = run_steps([jobs, front, jobs])
    assert summary["published"]
    version = current_version(front)
    assert version.version_id == summary["version_id"]
    assert str((version.path / "content_based_embeddings").readlink()) == "../../embeddings/current"
    version.verify()
    left = [key for key in objects(s3_address, bucket) if key.startswith("data/work/")]
    assert [key.split("/")[-1] for key in left] == ["plan.json"]
    later = datetime.now(UTC) + timedelta(minutes=1)
    open_store(jobs).discard_older("data/work", later)
    assert not [key for key in objects(s3_address, bucket) if key.startswith("data/work/")]


def test_what_one_machine_read_from_the_inbox_another_may_archive(jobs, front, bucket, s3_address):
    write_shop(jobs, [row(f"u{user}", user % 5) for user in range(20)])
    push_state(jobs)
    inbox = front.staging / "files"
    inbox.mkdir(parents=True)
    dropped = "user_id,product_id,rating,cmt_date,comment\nfile,3,4,2025-02-21 10:00:00,được\n"
    (inbox / "drop.csv").write_text(dropped)
    (inbox / "copying.csv.part").write_text("half")
    append_events(jobs, [{"event_id": "e", "user_id": "new", "product_id": "1", "rating": 5}])
    hand_in_segments(jobs)

    # The shop's file was dropped on one machine, and is archived by another than read it.
    summary = run_steps([front, jobs, jobs], datetime.now(UTC) + timedelta(minutes=1))
    assert summary["changes"]["new"] == 22
    assert [path.name for path in inbox.iterdir()] == ["copying.csv.part"]
    assert not [key for key in objects(s3_address, bucket) if key.startswith("data/staging/")]
    archive = {key.split("/")[2] for key in objects(s3_address, bucket) if "/raw/" in key}
    assert archive == {"viecomrec", "events", "dropped"}
    again = refresh(front, datetime.now(UTC) + timedelta(minutes=2), force_full=True)
    assert again["rows"]["accepted"] == 22
    [read] = current_version(jobs).manifest["staged"]["files"]
    assert read["path"].startswith("data/raw/dropped/viecomrec/")
    assert read["path"].endswith("-drop.csv")


def test_files_of_one_name_are_all_handed_in(jobs, front):
    write_shop(jobs, [row("u", 1)])
    push_state(jobs)
    for place, user in ((jobs, "a"), (front, "b"), (front, "c")):
        inbox = place.staging / "files"
        inbox.mkdir(parents=True, exist_ok=True)
        text = f"user_id,product_id,rating,cmt_date\n{user},3,4,2025-02-21 10:00:00\n"
        (inbox / "reviews.csv").write_text(text)
        hand_in_files(place)
        assert not list(inbox.iterdir())
    summary = refresh(jobs, datetime.now(UTC) + timedelta(minutes=1))
    assert summary["rows"]["accepted"] == 4


def test_a_refresh_that_is_cleared_may_end_on_a_machine_that_built_the_version(jobs, front):
    write_shop(jobs, [row(f"u{user}", user % 5) for user in range(20)])
    push_state(jobs)
    first = run_steps([jobs, front, jobs])
    current_version(front)
    again = run_steps([jobs, jobs, front])
    assert not again["new_version"]
    assert again["version_id"] == first["version_id"]
    current_version(front).verify()


def test_a_step_that_fails_hands_nothing_on(jobs, front):
    with open_workspace(jobs, "run") as work:
        work.empty()
        work.plan.write_text("first")
    with pytest.raises(RuntimeError):
        _fail_half_way(front)
    with open_workspace(jobs, "run") as work:
        assert work.plan.read_text() == "first"


def _fail_half_way(settings):
    with open_workspace(settings, "run") as work:
        work.plan.write_text("half of the sec")
        raise RuntimeError


def test_a_running_service_goes_on_while_the_bucket_is_away(tmp_path, monkeypatch):
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    with s3_server(tmp_path / "server.log") as address:
        front = machine(tmp_path / "front", new_bucket(address), address)
        write_shop(front, [row(f"u{user}", user % 5) for user in range(10)])
        refresh(front)
        add_model(front, "als_1")
        port = find_free_port()
        process, output = start_service(front, port, catalogue_check_seconds=1)
        try:
            wait_for(port)
        except BaseException:
            stop(process)
            raise
    try:  # the server is gone
        before = answers(port)
        time.sleep(3)
        assert answers(port) == before
        answer = reload(port, "als_1")
        assert answer.status_code == 409, answer.text
        assert answers(port) == before
        assert process.poll() is None
        # The duty repeats its request for some seconds, with pauses of random length, and gives up.
        eventually(lambda: "A recurring duty failed" in output.read_text(), 20, "a failed duty")
    finally:
        stop(process)


def reload(port, model_id):
    return requests.post(
        f"http://127.0.0.1:{port}/reload_model",
        json={"model_id": model_id},
        headers={"Authorization": "Bearer tok"},
        timeout=60,
    )


def stop(process):
    for child in psutil.Process(process.pid).children(recursive=True):
        child.kill()
    process.kill()
    process.wait()


def test_a_machine_that_did_not_train_gives_the_same_scores(jobs, front, make_shop):  # noqa: F811
    view = make_shop(1500)
    as_of = datetime(2025, 1, 1, tzinfo=UTC)
    trained = score_view(jobs, load_config(jobs, CommentConfig), view, as_of=as_of, may_train=True)
    assert trained.summary["scorer_decision"]["trained"]
    scored = score_view(
        front, load_config(front, CommentConfig), view, as_of=as_of, may_train=False
    )
    assert scored.scorer == trained.scorer
    assert scored.quality.equals(trained.quality)


def test_maintenance_on_one_machine_clears_the_bucket_for_all(jobs, front, bucket, s3_address):
    for number in range(5):
        add_model(jobs, f"als_{number}", select=number == 0, recall=0.3 - number / 100)
    append_history(jobs, {"model_id": "als_1", "status": "success"})
    # Published and never registered, by a training that died.
    (jobs.artifacts / "als" / "als_0").rename(jobs.artifacts / "als" / "als_dead")
    open_store(jobs).publish("artifacts/cf/als/als_dead")
    aged(jobs.artifacts / "als" / "als_dead", 3)
    put_object(s3_address, bucket, "artifacts/cf/als/als_9/upload/model.bin", b"unfinished")
    (front.home / "config" / "maintenance.yaml").write_text(
        "models: {keep_per_type: 1, keep_days: 0}\n"
    )

    summary = clean_models(front, dry_run=False)
    assert sorted(summary["models"]["examples"]) == ["als_2", "als_3"]
    assert {entry.model_id for entry in Registry(jobs).list()} == {"als_0", "als_1", "als_4"}
    names = open_store(jobs).names("artifacts/cf/als")
    assert names == ["als_0", "als_1", "als_4", "als_dead"]
    clean_models(jobs, dry_run=False)
    assert open_store(jobs).names("artifacts/cf/als") == ["als_0", "als_1", "als_4"]
    best = Registry(jobs).current_best()
    assert best is not None
    load_artifact(Registry(jobs).folder(best))
    # What is being uploaded at this moment is left alone.
    assert "artifacts/cf/als/als_9/upload/model.bin" in objects(s3_address, bucket)
