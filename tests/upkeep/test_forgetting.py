"""Nothing is left of customers who asked to be forgotten, and all else is as if they had never
been there."""

import gzip
import json
import os
import shutil
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from typer.testing import CliRunner

from recsys.cli import app
from recsys.data.staging import append_events
from recsys.data.versions import current_version, list_versions
from recsys.ids import IdRules
from recsys.locks import PipelineLock
from recsys.models.artifacts import load_artifact
from recsys.privacy import FORGETTING_KEY, Register, ask_to_forget, ids_to_forget, readmit
from recsys.pseudonyms import load_pseudonyms
from recsys.refresh.job import run_refresh
from recsys.registry import Registry
from recsys.request_log import Answered, RequestLog
from recsys.schedule import DataInterval
from recsys.settings import REPOSITORY, Settings
from recsys.training.job import train_model
from recsys.upkeep.forgetting import forget_customers
from recsys.upkeep.personal import PERSONAL, not_searched, sought
from tests.data.shop import HEADER, row, write_shop
from tests.upkeep.byte_search import search
from tests.upkeep.marked_shop import (
    MARKED,
    WORDS,
    comment_mark,
    make_shop,
    reviews,
    session_of,
)

GONE = (*WORDS[:3], MARKED[-1])
NOW = datetime.now(UTC)
AREAS = ("data/raw", "data/staging", "data/versions", "data/work", "artifacts")


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Settings:
    settings = Settings(tmp_path_factory.mktemp("marked") / "home")
    make_shop(settings, NOW)
    return settings


@pytest.fixture
def shop(made, tmp_path) -> Settings:
    """A copy of the shop for each test."""
    shutil.copytree(made.home, tmp_path / "home", symlinks=True)
    return Settings(tmp_path / "home")


def forget(settings: Settings, *customers: str) -> dict:
    ask_to_forget(settings, customers, "lan", IdRules())
    return forget_customers(settings)


def test_whatever_can_be_found_can_be_forgotten():
    """Figures by customer are counted again from what is left of lists and events."""
    stays = {one.what for one in PERSONAL if one.find is not None and one.forget is None}
    assert stays == {"outcomes by customer"}


def test_nothing_is_left_of_them_in_data_and_models(shop):
    done = forget(shop, *GONE)
    assert done["left"] == []
    for area in AREAS:
        assert search(shop.home / area, of(GONE)) == {}, area


def test_files_of_the_shop_are_as_if_they_had_never_stood_there(made, shop):
    forget(shop, *GONE)
    found = (shop.raw / "viecomrec" / "data_reviews_purchase.csv").read_text()
    assert found == "\n".join([HEADER, *reviews(NOW, WORDS[3:]), ""])
    left, before = ((at.raw / "orders" / "2025.csv").read_text().split("\n") for at in (shop, made))
    assert left == [line for line in before if not {*GONE}.intersection(line.split(";"))]
    assert 2 < len(left) < len(before)


def test_versions_and_models_are_those_of_a_shop_that_never_had_them(shop, tmp_path):
    forget(shop, *GONE)
    never = Settings(tmp_path / "never")
    shutil.copytree(shop.raw, never.raw)
    shutil.copytree(shop.home / "config", never.home / "config")
    version = current_version(shop)
    run_refresh(never, DataInterval(version.as_of - timedelta(days=1), version.as_of))
    expected = current_version(never)
    assert hashes(version) == hashes(expected)
    assert version.stats() == expected.stats()
    assert list_versions(shop) == [version.version_id]
    assert (shop.reports / "data_quality" / f"{version.version_id}.html").exists()
    trained = [train_model(one, "als", current_version(one).version_id) for one in (shop, never)]
    folders = [
        Registry(at).folder(Registry(at).get(one["model_id"]))
        for at, one in zip((shop, never), trained, strict=True)
    ]
    ours, theirs = (
        {path.relative_to(at): path.read_bytes() for path in at.glob("*/*.npy")} for at in folders
    )
    assert ours == theirs


def hashes(version) -> dict[str, str]:
    return {name: entry.sha256 for name, entry in version.files.items()}


def test_models_know_all_others_as_before(shop):
    before = Registry(shop).current_best()
    assert before is not None
    model = load_artifact(Registry(shop).folder(before))
    model.close()
    forget(shop, *GONE)
    entry = Registry(shop).current_best()
    assert entry is not None
    assert (entry.model_id, entry.path) == (before.model_id, f"{before.path}.1")
    after = load_artifact(Registry(shop).folder(entry))
    assert set(model.user_ids) - set(after.user_ids) == set(WORDS[:3])
    for one in ("u1", "u99", WORDS[3]):
        mine, then = after.history_of(one), model.history_of(one)
        assert mine is not None
        assert then is not None
        assert mine.items.tolist() == then.items.tolist()
    assert not (shop.home / before.path).exists()
    assert len(after.manifest["sample_users"]) == len(model.manifest["sample_users"])


def test_the_only_one_of_whom_something_waits_is_forgotten(settings):
    write_shop(settings, [row("7", 1), *(row(f"u{user}", user % 5) for user in range(10))])
    append_events(settings, [{"event_id": "e1", "user_id": "7", "product_id": "3", "rating": 5}])
    done = forget(settings, "7")
    assert (done["forgotten"], done["left"]) == (1, [])
    [segment] = (settings.staging / "sealed").glob("*.jsonl")
    assert segment.read_bytes() == b""
    assert sought(settings, ["7"]).sessions == {}


def test_of_whom_nothing_is_kept_the_request_is_done(shop):
    done = forget(shop, "who-is-this")
    assert (done["requests"], done["forgotten"], done["open"]) == (1, 1, 0)
    [request] = Register(shop).requests("who-is-this")
    assert request.done_at is not None
    assert (request.proof["erased"], request.proof["left"]) == ({}, [])
    assert ids_to_forget(shop).read() == {}


def test_without_requests_it_does_nothing(settings):
    assert forget_customers(settings)["requests"] == 0
    assert not (settings.home / "data").exists()


def test_what_cannot_be_read_keeps_the_request_open_and_somebody_is_told(shop):
    bad = shop.raw / "orders" / "more.parquet"
    bad.write_bytes(b"PAR1 and then nothing that makes sense")
    done = forget(shop, "who-is-this")
    assert (done["open"], done["left"]) == (1, ["data/raw/orders/more.parquet"])
    [request] = Register(shop).requests("who-is-this")
    assert request.done_at is None
    assert request.proof["left"][0]["place"] == "data/raw/orders/more.parquet"
    assert "customers_not_forgotten" in (shop.logs / "service" / "alerts.log").read_text()
    bad.unlink()
    assert forget_customers(shop)["forgotten"] == 1
    assert ids_to_forget(shop).read() == {}


@pytest.mark.parametrize("named", ["{}/list.parquet", "{}.parquet", "lists/answer-{}/a.parquet"])
def test_no_folder_or_file_tells_the_id_to_the_register_an_alert_or_a_log(settings, named, caplog):
    path = settings.home / "exports" / named.format("KH-01x")
    path.parent.mkdir(parents=True)
    path.write_bytes(b"PAR1 and then nothing that makes sense")
    with caplog.at_level("INFO"):
        done = forget(settings, "KH-01x")
    assert done["open"] == 1
    assert "..." in done["left"][0]
    [request] = Register(settings).requests()
    told = [str(done), str(request.proof), caplog.text]
    told += [path.read_text() for path in (settings.logs / "service").glob("*.log")]
    assert len(told) > 3
    assert not [one for one in told if "KH-01x" in one]


def test_a_proof_names_what_in_the_state_root_is_not_searched(settings):
    (settings.home / "backups").mkdir(parents=True)
    (settings.home / "KH-01x.csv").write_text("user_id\nKH-01x\n")
    assert forget(settings, "KH-01x")["forgotten"] == 1
    [request] = Register(settings).requests()
    assert request.proof["not_searched"] == ["...", "backups"]


def test_in_the_repository_nothing_of_the_product_is_named():
    shipped = subprocess.run(["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True)
    top = {line.split("/")[0] for line in shipped.stdout.splitlines()}
    assert {*not_searched(Settings(REPOSITORY))}.isdisjoint(top)


def test_an_id_that_nobody_knows_any_more_is_asked_for_again(shop):
    ask_to_forget(shop, ["who-is-this"], "lan", IdRules())
    (shop.home / FORGETTING_KEY).unlink()
    assert forget_customers(shop)["open"] == 1
    [request] = Register(shop).requests("who-is-this")
    assert "ask again" in request.proof["left"][0]["reason"]
    assert forget(shop, "who-is-this")["forgotten"] == 1
    assert [one.number for one in Register(shop).requests()] == [request.number]


def test_files_elsewhere_are_the_shops_and_named(shop, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    shutil.move(shop.raw / "orders", elsewhere)
    (shop.raw / "orders").symlink_to(elsewhere)
    before = (elsewhere / "2025.csv").read_bytes()
    forget(shop, WORDS[1])
    [request] = Register(shop).requests(WORDS[1])
    assert request.proof["the_shops"] == ["data/raw/orders/2025.csv"]
    assert (elsewhere / "2025.csv").read_bytes() == before


def test_who_was_readmitted_in_time_is_not_removed(shop):
    before = (shop.raw / "orders" / "2025.csv").read_bytes()
    ask_to_forget(shop, [WORDS[0]], "lan", IdRules())
    readmit(shop, [WORDS[0]], "lan", IdRules())
    assert forget_customers(shop)["requests"] == 0
    assert (shop.raw / "orders" / "2025.csv").read_bytes() == before


def test_it_waits_for_jobs_that_would_write_it_down_again(shop):
    ask_to_forget(shop, ["who-is-this"], "lan", IdRules())
    with ThreadPoolExecutor() as threads:
        with PipelineLock("data_refresh", shop) as lock:
            assert lock.acquired
            job = threads.submit(forget_customers, shop)
            time.sleep(1.5)
            assert not job.done()
        assert job.result(timeout=60)["forgotten"] == 1


def test_scratch_of_runs_that_died_goes(shop):
    left = [
        shop.work / "data_refresh-x" / "rows.feather",
        shop.artifacts / "fits" / "als" / "0123" / "model" / "x.npy",
        shop.versions / f".v9.{'0' * 32}.tmp" / "interactions.parquet",
        shop.versions / ".removed-v8-0123" / "interactions.parquet",
        shop.artifacts / "als" / f".als_9.{'0' * 32}.tmp" / "users.npy",
    ]
    for path in left:
        path.parent.mkdir(parents=True)
        path.write_text(WORDS[0])
    forget(shop, WORDS[0])
    assert not any(path.exists() for path in left)


def test_who_comes_back_goes_again(settings):
    rows = [row("KH01", 1), *(row(f"u{user}", user % 5) for user in range(10))]
    write_shop(settings, rows)
    forget(settings, "KH01")
    assert forget_customers(settings)["came_back"] == 0
    write_shop(settings, rows)  # tonight's export, which knows nothing of it
    before = Register(settings).requests()
    done = forget_customers(settings)
    assert (done["requests"], done["came_back"], done["left"]) == (0, 1, [])
    assert "KH01" not in (settings.raw / "viecomrec" / "data_reviews_purchase.csv").read_text()
    assert Register(settings).requests() == before
    assert ids_to_forget(settings).read() == {}
    readmit(settings, ["KH01"], "lan", IdRules())
    write_shop(settings, rows)
    assert forget_customers(settings)["came_back"] == 0
    assert "KH01" in (settings.raw / "viecomrec" / "data_reviews_purchase.csv").read_text()


@pytest.mark.parametrize("name", ["a.tsv", "a.CSV", "a.csv.gz", "a.json"])
def test_who_comes_back_in_a_table_goes_whatever_that_is_called(settings, name):
    forget(settings, "KH-01x")
    path = settings.home / "exports" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    content = b"user_id\tn\nKH-01x\t1\nKH-02x\t2\n"
    if name.endswith("json"):
        content = b'{"all": [{"user_id": "KH-01x"}, {"user_id": "KH-02x"}]}'
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    assert forget_customers(settings)["came_back"] == 1
    assert search(path.parent, {"KH-01x": "KH-01x"}) == {}
    assert search(path.parent, {"KH-02x": "KH-02x"}) != {}


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_what_another_machine_has_logged_under_a_pseudonym_goes_there_as_well(settings, log_format):
    forget(settings, "KH01")
    name = load_pseudonyms(settings).of("KH01")
    log_file = settings.logs / "service" / "recommender.log"
    log = RequestLog(settings.service_db, log_file, ZoneInfo("UTC"), log_format=log_format)
    for user in (name, "u1"):
        log.add(Answered(time.time(), "recommend", user, 5, 1.0, False, None, None, "m", 200))
    log.close()
    assert len(search(settings.logs, [name])) == 4  # its log, two in the database, the register's
    assert forget_customers(settings)["came_back"] == 1
    assert list(search(settings.logs, [name])) == ["customer_audit.log"]
    assert ('"user_id": "u1"' if log_format == "json" else "user_id=u1") in log_file.read_text()
    assert forget_customers(settings)["came_back"] == 0


def test_a_machine_without_airflow_forgets_by_itself(settings, monkeypatch):
    write_shop(settings, [row("KH01", 1), *(row(f"u{user}", user % 5) for user in range(10))])
    ask_to_forget(settings, ["KH01"], "lan", IdRules())
    monkeypatch.setenv("RECSYS_HOME", str(settings.home))
    by_airflow = CliRunner().invoke(app, ["forget-customers"])
    assert "nothing is set up here" in str(by_airflow.exception)
    done = CliRunner().invoke(app, ["forget-customers", "--local"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["summary"]["forget"]["forgotten"] == 1
    assert search(settings.home, ["KH01"]) == {}


def test_what_a_killed_try_has_left_keeps_nothing_open(shop):
    name = f".2025.parquet.{'0' * 32}.tmp"
    places = [shop.raw / "orders", shop.staging / "files", shop.home / "exports", shop.logs]
    for place in places:
        (place / name).write_bytes(b"PAR1")
    ask_to_forget(shop, [WORDS[0]], "lan", IdRules())
    later = time.time() + 60
    for place in places:
        os.utime(place / name, (later, later))
    assert forget_customers(shop)["left"] == []
    left = [place.name for place in places if (place / name).exists()]
    assert left == ["exports", "logs"]  # where others may be writing


def of(customers) -> list[str]:
    """What can only be theirs."""
    return [way(one) for one in customers for way in (str, session_of, comment_mark)]
