"""A sign of life for a dead-man's switch outside: who waits for it notices silence."""

import threading
from concurrent.futures import Future, wait
from typing import Final

import requests

from recsys.alerting.manager import AlertManager

WAIT_SECONDS: Final = 5.0
"""For the connection, and for each piece of the answer."""
DEADLINE_SECONDS: Final = 10.0

SENT: Final = "sent"
FAILED: Final = "failed"
NOT_SET_UP: Final = "not set up"


def send_heartbeat(manager: AlertManager) -> str:
    """Ask the URL ``heartbeat.url`` once: ``sent``, ``failed`` (a line in the alert log says why,
    without the URL) or ``not set up``. Never raises, and takes ten seconds at most."""
    url = manager.heartbeat_url
    if url is None:
        return NOT_SET_UP
    answer: Future[int] = Future()

    def ask() -> None:
        try:
            # What is answered, and where it leads to, is nobody's business here.
            with requests.get(url, timeout=WAIT_SECONDS, stream=True, allow_redirects=False) as got:
                answer.set_result(got.status_code)
        except Exception as error:  # noqa: BLE001 - told below
            answer.set_exception(error)

    threading.Thread(target=ask, name="heartbeat", daemon=True).start()
    if not wait([answer], DEADLINE_SECONDS).done:
        problem = f"no answer within {DEADLINE_SECONDS:g} s"
    elif error := answer.exception():
        problem = f"{type(error).__name__}: {error}"
    elif 200 <= answer.result() < 300:
        return SENT
    else:
        problem = f"HTTP {answer.result()}"
    manager.note_failure("Heartbeat", problem)
    return FAILED
