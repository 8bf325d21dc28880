"""What docs/outcomes.md tells a shop to write works against a running service."""

import contextlib
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from recsys.outcomes.daily import figured_days, read_totals
from recsys.outcomes.job import compute_outcomes
from recsys.schedule import DataInterval
from recsys.settings import Settings
from serving.app import create_app
from serving.config import ServiceEnvironment
from tests.documented import pages
from tests.ports import find_free_port
from tests.serving.service_process import service_in_thread
from tests.serving.shops import add_model

PAGE = pages()["docs/outcomes.md"]
# A page with one list, one click on a product of it, and one on something else.
BROWSER = """
const store = () => { const kept = {}; return { kept, getItem: (k) => kept[k] ?? null,
  setItem: (k, v) => { kept[k] = v; } }; };
const sent = [];
let clicked;
globalThis.sessionStorage = {};
globalThis.localStorage = store();
Object.defineProperty(globalThis, "navigator", { value: { sendBeacon: (url, body) =>
  sent.push([url, JSON.parse(body)]) } });
globalThis.document = { querySelectorAll: () => [{
  dataset: { recommendation: process.argv[2], placement: "home" },
  addEventListener: (name, then) => { clicked = then; } }] };
%s
clicked({ target: { closest: () => ({ dataset: { product: process.argv[3] } }) } });
clicked({ target: { closest: () => null } });
tell("cart", process.argv[3], cameFrom(process.argv[3]));
console.log(JSON.stringify({ sent, from: cameFrom(process.argv[3]), none: cameFrom("x") }));
"""


@contextlib.contextmanager
def running(settings: Settings) -> Iterator[str]:
    """The address of a service, until it is stopped."""
    add_model(settings, "als_1")
    port = find_free_port()
    with service_in_thread(create_app(settings, ServiceEnvironment()), port):
        yield f"http://127.0.0.1:{port}"


def in_the_browser(recommendation: str, product: str) -> dict[str, Any]:
    [script] = re.findall(r"```javascript\n(.*?)```", PAGE, re.DOTALL)
    done = subprocess.run(
        ["node", "-", recommendation, product],
        input=BROWSER % script,
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(json.loads(done.stdout))


@pytest.mark.skipif(shutil.which("node") is None, reason="no node to run the browser's part")
def test_what_a_shop_copies_from_the_page_is_counted(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    [server] = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    shop: dict[str, Any] = {}
    with running(settings) as address:
        monkeypatch.setenv("RECSYS_SERVICE_URL", address)
        exec(server, shop)
        found = shop["recommend"]("nobody-yet", "visit-1", "home")
        product = str(found["recommendations"][0]["product_id"])
        browser = in_the_browser(found["recommendation_id"], product)
        assert [url for url, _ in browser["sent"]] == ["/shop/events"] * 2
        events = [event for _, event in browser["sent"]]
        assert [event["kind"] for event in events] == ["click", "cart"]
        assert (browser["from"]["placement"], browser["none"]) == ("home", {})
        line = {"product_id": product, "quantity": 2, "value": 378000, **browser["from"]}
        for _ in range(2):  # sent again after an error: each counts once
            assert shop["send_on"](events) == []
            shop["ordered"]({"id": "order-1", "lines": [line]}, "nobody-yet")
        wrong = {"event_id": "x", "product_id": product, "kind": "bought"}
        for sent in ([wrong], [wrong, *events]):  # a sentence each, whether others are good or not
            [said] = shop["send_on"](sent)
            assert said.startswith("kind: ")
    until = datetime.now(UTC) + timedelta(minutes=1)
    compute_outcomes(settings, DataInterval(until - timedelta(hours=1), until))
    totals = read_totals(settings, figured_days(settings)[-1])
    counts = ("lists", "clicks", "carts", "purchases", "value")
    assert [totals[name] for name in counts] == [1, 1, 1, 1, 378000]
