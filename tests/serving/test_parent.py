"""Several worker processes behave as one service."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter

import psutil
import pytest
import requests
from fastapi.testclient import TestClient

from recsys.settings import REPOSITORY, Settings
from tests.serving.service_process import running_service, start_service, wait_for
from tests.serving.shops import add_model, product_id

pytestmark = pytest.mark.boots

LOADING = "No published catalogue"
"""What a worker logs when it loads a model in these tests."""

ADMIN = {"Authorization": "Bearer tok"}


def ask(port: int, user: object = 1, session: requests.Session | None = None) -> dict:
    answer = (session or requests).post(
        f"http://127.0.0.1:{port}/recommend", json={"user_id": user, "topk": 5}, timeout=20
    )
    assert answer.status_code == 200, answer.text
    return answer.json()


def models_of_all_workers(port: int, tries: int = 30) -> set[str]:
    return {ask(port)["model_id"] for _ in range(tries)}


def reload(port: int, model_id: str) -> requests.Response:
    return requests.post(
        f"http://127.0.0.1:{port}/reload_model",
        json={"model_id": model_id},
        headers=ADMIN,
        timeout=60,
    )


def workers_of(port: int) -> list[psutil.Process]:
    [parent] = [
        process
        for process in psutil.process_iter(["environ", "cmdline"])
        if (process.info["environ"] or {}).get("RECSYS_SERVICE_PORT") == str(port)
        and (process.info["cmdline"] or [])[-2:] == ["-m", "serving"]
    ]
    return parent.children()


def test_reloads_under_load_reach_every_worker_and_fail_no_request(
    settings: Settings, free_port: int
):
    add_model(settings, "als_1", seed=1)
    add_model(settings, "als_2", seed=2, select=False)
    with running_service(settings, free_port, workers=2):
        answers: list[dict] = []
        stop = threading.Event()

        def load() -> None:
            session = requests.Session()
            while not stop.is_set():
                answers.append(ask(free_port, len(answers) % 60, session))

        threads = [threading.Thread(target=load) for _ in range(3)]
        for thread in threads:
            thread.start()
        for number in range(10):
            wanted = f"als_{1 + number % 2}"
            answer = reload(free_port, wanted)
            assert answer.status_code == 200, answer.text
            assert answer.json()["workers"] == 2
            # After the answer no worker serves the old one any more.
            assert models_of_all_workers(free_port, 6) == {wanted}
        stop.set()
        for thread in threads:
            thread.join()
    assert set(Counter(answer["model_id"] for answer in answers)) == {"als_1", "als_2"}
    # No answer mixes two models: each user has one list a model.
    lists: dict[tuple, set[tuple]] = {}
    for answer in answers:
        rows = tuple(
            (row["product_id"], round(row["score"], 5)) for row in answer["recommendations"]
        )
        lists.setdefault((answer["model_id"], answer["user_id"]), set()).add(rows)
    assert all(len(found) == 1 for found in lists.values())


def test_a_model_that_cannot_be_loaded_is_served_by_no_worker(settings: Settings, free_port: int):
    add_model(settings, "als_1")
    add_model(settings, "als_2", select=False)
    (settings.artifacts / "als" / "als_2" / "popularity.npy").write_bytes(b"broken")
    with running_service(settings, free_port, workers=2):
        answer = reload(free_port, "als_2")
        assert answer.status_code == 409
        assert "worker 0" in answer.json()["detail"]
        assert "worker 1" in answer.json()["detail"]
        assert models_of_all_workers(free_port) == {"als_1"}


def test_a_worker_that_dies_comes_back_with_the_model_that_all_serve(
    settings: Settings, free_port: int
):
    add_model(settings, "als_1")
    add_model(settings, "als_2", select=False)
    with running_service(settings, free_port, workers=2):
        assert reload(free_port, "als_2").status_code == 200
        victim = workers_of(free_port)[0]
        victim.kill()
        until = time.monotonic() + 30
        # The new one has joined when a reload counts two workers again.
        while reload(free_port, "als_2").json().get("workers", 0) < 2:
            assert time.monotonic() < until
            time.sleep(0.1)
        assert victim not in workers_of(free_port)
        assert models_of_all_workers(free_port) == {"als_2"}


def test_a_worker_that_dies_while_it_loads_stops_the_reload(settings: Settings, free_port: int):
    add_model(settings, "als_1")
    add_model(settings, "als_2", select=False)
    with running_service(settings, free_port, workers=2) as output:
        while output.read_text().count(" joined | ") < 2:
            time.sleep(0.05)
        first, second = workers_of(free_port)
        os.kill(second.pid, signal.SIGSTOP)  # it cannot answer the parent any more
        loaded = output.read_text().count(LOADING)
        found: list[requests.Response] = []
        thread = threading.Thread(target=lambda: found.append(_patient_reload(free_port)))
        thread.start()
        while output.read_text().count(LOADING) == loaded:
            time.sleep(0.05)
        os.kill(second.pid, signal.SIGKILL)
        thread.join()
        assert first.is_running()
        assert found[0].status_code == 409
        assert "died while it loaded" in found[0].json()["detail"]
        assert models_of_all_workers(free_port) == {"als_1"}


def _patient_reload(port: int) -> requests.Response:
    """Asked until the running worker accepts the connection; the stopped one never answers."""
    until = time.monotonic() + 60
    while True:
        assert time.monotonic() < until, "no worker takes the request"
        try:
            return requests.post(
                f"http://127.0.0.1:{port}/reload_model",
                json={"model_id": "als_2"},
                headers=ADMIN,
                timeout=(1, 30),
            )
        except requests.RequestException:
            time.sleep(0.1)


def send_purchases(port: int, user: str) -> None:
    """Three products that the user bought."""
    events = [
        {"event_id": f"{user}-{item}", "user_id": user, "product_id": product_id(item), "rating": 5}
        for item in (1, 2, 3)
    ]
    url = f"http://127.0.0.1:{port}/interactions"
    assert requests.post(url, json={"events": events}, timeout=20).status_code == 200


def test_interactions_count_at_once_in_every_worker(settings: Settings, free_port: int):
    add_model(settings, "als_1")
    with running_service(settings, free_port, workers=2):
        for user in ("new-1", "new-2", "new-3"):
            models_of_all_workers(free_port, 4)
            send_purchases(free_port, user)
            assert {ask(free_port, user)["fallback"] for _ in range(20)} == {False}


def test_interactions_count_in_every_replica_on_the_same_state(
    settings: Settings, free_port: int, client: TestClient
):
    """`client` is a service of its own, in this process."""

    def fallback(user: str) -> bool:
        return client.post("/recommend", json={"user_id": user}).json()["fallback"]

    with running_service(settings, free_port):
        for user in ("new-1", "new-2"):
            assert fallback(user)
            send_purchases(free_port, user)
            time.sleep(0.15)
            assert not fallback(user)


def test_a_client_limit_holds_over_all_workers(settings: Settings, free_port: int):
    add_model(settings, "als_1")
    with running_service(settings, free_port, workers=2, requests_per_client_minute=60):
        url = f"http://127.0.0.1:{free_port}/model_info"
        found = Counter(requests.get(url, timeout=20).status_code for _ in range(120))
    assert found[200] <= 60
    assert found[429] >= 60


def test_killed_parent_takes_its_workers_along_and_the_port_is_free_again(
    settings: Settings, free_port: int
):
    add_model(settings, "als_1")
    process, _ = start_service(settings, free_port, workers=2)
    wait_for(free_port)
    workers = workers_of(free_port)
    process.kill()
    process.wait()
    # Started again at once, as a supervisor does: it waits for the port.
    with running_service(settings, free_port, workers=1):
        _, alive = psutil.wait_procs(workers, timeout=10)
        assert not alive
        wait_for(free_port)
        assert ask(free_port)["model_id"] == "als_1"


def test_a_service_that_has_never_had_a_model_starts_and_takes_the_first(
    settings: Settings, free_port: int
):
    process, _ = start_service(settings, free_port, workers=2)
    try:
        assert wait_for(free_port, "no_model")["model_id"] is None
        add_model(settings, "als_1")
        assert reload(free_port, "als_1").json()["previous_model_id"] is None
        assert models_of_all_workers(free_port) == {"als_1"}
    finally:
        process.terminate()
        process.wait(timeout=40)


@pytest.mark.timeout(60)
def test_a_port_in_use_is_one_sentence(settings: Settings):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        done = subprocess.run(
            [sys.executable, "-m", "serving"],
            cwd=REPOSITORY,
            env=os.environ | {"RECSYS_HOME": str(settings.home), "RECSYS_SERVICE_PORT": str(port)},
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 2
    assert f"cannot listen on 127.0.0.1:{port}" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_service_runs_without_what_only_linux_has(
    settings: Settings, free_port: int, monkeypatch: pytest.MonkeyPatch
):
    add_model(settings, "als_1")
    folder = settings.home / "elsewhere"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(
        "import os, pathlib\n"
        "for name in ('memfd_create', 'fdatasync', 'sched_getaffinity', 'posix_fallocate'):\n"
        "    delattr(os, name)\n"
        "is_dir = pathlib.Path.is_dir\n"
        "pathlib.Path.is_dir = lambda path: str(path) != '/dev/shm' and is_dir(path)\n"
    )
    with running_service(settings, free_port, workers=2, python_path=folder):
        assert ask(free_port)["model_id"] == "als_1"
        event = {"event_id": "e", "user_id": "new", "product_id": "p3", "rating": 5}
        url = f"http://127.0.0.1:{free_port}/interactions"
        assert requests.post(url, json=event, timeout=20).status_code == 200
