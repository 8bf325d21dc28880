"""Connections that send no request, or not all of it, cost little and not for long."""

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator

import pytest
import requests

from recsys.settings import Settings
from tests.conftest import find_free_port
from tests.serving.service_process import running_service
from tests.serving.shops import add_model

pytestmark = pytest.mark.boots


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """A service that gives bodies a second, and headers a second and a half."""
    folder = tmp_path_factory.mktemp("elsewhere")
    (folder / "sitecustomize.py").write_text(
        "import sys\n"
        "if 'serving.worker' in ' '.join(sys.orig_argv):\n"
        "    import serving.guard as guard\n"
        "    guard.HEAD_SECONDS = 1.5\n"
        "    guard.MAX_WAITING = 20\n"
    )
    settings = Settings(tmp_path_factory.mktemp("home"))
    add_model(settings, "als_1")
    free = find_free_port()
    with running_service(settings, free, python_path=folder, request_timeout_seconds=1):
        yield free


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=20)


def answer_of(connection: socket.socket) -> tuple[int, dict]:
    content = b""
    with contextlib.suppress(ConnectionResetError):
        while part := connection.recv(65536):
            content += part
    head, _, body = content.partition(b"\r\n\r\n")
    return int(head.split(b" ")[1]), json.loads(body)


def works(port: int) -> bool:
    answer = requests.post(f"http://127.0.0.1:{port}/recommend", json={"user_id": 1}, timeout=20)
    return answer.status_code == 200


@pytest.mark.parametrize("chunk", [1_000, 100_000, 1_000_000])
def test_headers_without_an_end_are_refused(port: int, chunk: int):
    with connect(port) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\nX-Long: ")
        with contextlib.suppress(ConnectionError):
            for _ in range(50_000_000 // chunk):
                connection.sendall(b"a" * chunk)
    assert works(port)


def test_long_headers_are_a_431_and_usual_ones_are_not(port: int):
    for size, status in ((30_000, 200), (70_000, 431)):
        with connect(port) as connection:
            lines = [b"GET /demo HTTP/1.1", b"Host: x", b"Connection: close"]
            connection.sendall(b"\r\n".join([*lines, b"X-Long: " + b"a" * size, b"", b""]))
            with contextlib.suppress(ValueError):
                found, problem = answer_of(connection)
                assert "65536 bytes" in problem["detail"]
            if status == 200:
                continue
            assert found == 431


def test_a_connection_that_does_not_finish_its_headers_is_ended(port: int):
    with connect(port) as slow, connect(port) as silent:
        started = time.monotonic()
        slow.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n")
        status, problem = answer_of(slow)
        assert status == 408
        assert "headers" in problem["detail"]
        assert silent.recv(1) == b""
        assert time.monotonic() - started < 6
    with connect(port) as again:
        again.sendall(b"GET /demo/demo.js HTTP/1.1\r\nHost: x\r\n\r\nGET /hea")
        assert again.recv(100).startswith(b"HTTP/1.1 200")
        started = time.monotonic()
        while again.recv(65536):
            pass
        assert time.monotonic() - started < 6


def test_so_many_connections_may_wait_and_the_oldest_go_first(port: int):
    with contextlib.ExitStack() as stack:
        waiting = [stack.enter_context(connect(port)) for _ in range(60)]
        time.sleep(0.3)
        assert works(port)
        for connection in waiting:
            connection.settimeout(0.05)
        ended = 0
        for connection in waiting[:40]:
            with contextlib.suppress(TimeoutError):
                ended += connection.recv(1) == b""
        assert ended >= 35


@pytest.mark.parametrize(
    "body", [b"Content-Length: 100\r\n\r\n{", b"Transfer-Encoding: chunked\r\n\r\n5\r\n{"]
)
def test_a_body_that_does_not_arrive_is_the_callers_fault(port: int, body: bytes):
    for path in ("/recommend", "/search", "/interactions"):
        with connect(port) as connection:
            head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            connection.sendall(head.encode() + body)
            status, problem = answer_of(connection)
        assert status == 408, path
        assert "did not arrive" in problem["detail"]
    text = requests.get(f"http://127.0.0.1:{port}/metrics", timeout=20).text
    assert "5xx" not in text


def test_trailers_of_any_length_are_not_kept(port: int):
    with connect(port) as connection:
        connection.sendall(
            b"POST /recommend HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
            b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
            b'd\r\n{"user_id": 1}\r\n0\r\n'
        )
        with contextlib.suppress(ConnectionError):
            for number in range(1000):
                connection.sendall(f"X-{number}: {'a' * 500}\r\n".encode())
            connection.sendall(b"\r\n")
    assert works(port)


def test_customers_are_served_beside_a_thousand_unfinished_requests(port: int):
    stop = threading.Event()

    def attack() -> None:
        while not stop.is_set():
            with contextlib.suppress(OSError), connect(port) as connection:
                connection.sendall(b"POST /recommend HTTP/1.1\r\nHost")

    threads = [threading.Thread(target=attack) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        assert all(works(port) for _ in range(30))
    finally:
        stop.set()
        for thread in threads:
            thread.join()
