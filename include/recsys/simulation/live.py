"""Customers of a running service: they ask it for lists over HTTP, and what they do with these is
sent to it as a shop's front end would send it, when it happens."""

import heapq
import itertools
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple

import numpy as np
import requests

from recsys import schema
from recsys.arrays import Int64Array
from recsys.data.simulated import PREFIX, note_traffic, require_sample
from recsys.data.versions import open_version
from recsys.schedule import load_zone
from recsys.schema import Kind
from recsys.settings import Settings
from recsys.simulation.behaviour import Deeds, behave
from recsys.simulation.visits import GOES_ON, GUESTS
from recsys.simulation.world import World

TOPK = 10
ANSWER_SECONDS = 20.0
SEND_SECONDS = 1.0
TELL_SECONDS = 5.0
OPEN_VISITS = 50  # that may go on
MANY = 500  # events of a request
BUSY = (429, 503)
_IDLE_SECONDS = 0.05
CART = "cart"
MOST_IN_CART = 20
COMPLETES = 2.0
"""So much more attractive is beside the cart what completes it, in deviations of attraction."""
UNKNOWN_PRODUCT = -4.0
"""Attraction of a product that the world does not have: newer than its version."""


class TrafficError(RuntimeError):
    """The service is not there, or refuses what customers send; the text says which."""


@dataclass(frozen=True)
class Service:
    """Where the service listens, and the token that it wants for events."""

    url: str
    token: str | None = field(default=None, repr=False)


class Visit(NamedTuple):
    """A customer's visit. `guest` says that only the taste is that of `customer`."""

    customer: int
    guest: bool
    session_id: str
    user_id: str
    cart: list[str]  # ids, in the order in which they came into it


class Front:
    """The shop's front end: asks for lists, and sends events when they are due."""

    def __init__(self, service: Service) -> None:
        self._service, self._session = service, requests.Session()
        self._due: list[tuple[float, int, dict[str, Any]]] = []
        self._order = itertools.count()
        self.counts: Counter[str] = Counter()

    def served_version(self) -> str:
        """The data version of the model in service."""
        return str(self._ask("GET", "/model_info").json().get("data_version"))

    def recommend(self, visit: Visit, placement: str) -> dict[str, Any] | None:
        """A list for the visit, or beside its cart, None from a service that is too busy to make
        one."""
        asked: dict[str, Any] = {"user_id": visit.user_id, "session_id": visit.session_id}
        path = "/recommend"
        if placement == CART:
            path, asked = "/bought_together", asked | {"product_ids": visit.cart}
        answer = self._ask("POST", path, asked | {"topk": TOPK, "placement": placement})
        if answer.status_code in BUSY:
            self.counts["busy"] += 1
            return None
        self.counts["lists"] += 1
        return dict(answer.json())

    def happens(self, seconds: float, event: dict[str, Any]) -> None:
        """Send the `event` when so many seconds have passed."""
        heapq.heappush(self._due, (time.time() + seconds, next(self._order), event))

    def send(self) -> None:
        """Send the events that are due; what a busy service does not take is due later."""
        now = time.time()
        events: list[dict[str, Any]] = []
        while self._due and self._due[0][0] <= now and len(events) < MANY:
            when, _, event = heapq.heappop(self._due)
            events.append({**event, "timestamp": datetime.fromtimestamp(when, UTC).isoformat()})
        if not events:
            return
        answer = self._ask("POST", "/interactions", {"events": events})
        if answer.status_code in BUSY:
            for event in events:
                self.happens(SEND_SECONDS, event)
            return
        rejected = {one["index"] for one in answer.json().get("rejected", ())}
        taken = [event for place, event in enumerate(events) if place not in rejected]
        self.counts.update(events=len(taken), refused=len(rejected))
        self.counts.update(event["kind"] for event in taken)

    @property
    def to_come(self) -> int:
        """Events that are not due yet."""
        return len(self._due)

    def _ask(self, method: str, path: str, body: Any = None) -> requests.Response:
        """An answer that is good, or that of a busy service. Raises `TrafficError`."""
        token = self._service.token if path == "/interactions" else None
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        url = self._service.url + path
        try:
            answer = self._session.request(
                method, url, json=body, headers=headers, timeout=ANSWER_SECONDS
            )
        except requests.RequestException as error:
            raise TrafficError(
                f"there is no service at {self._service.url} ({type(error).__name__}); start it "
                "with `make up`, or set RECSYS_SERVICE_URL"
            ) from error
        said = answer.text[:300]
        if answer.status_code in (401, 403) and path == "/interactions":
            raise TrafficError(f"{url} wants a token, the one in RECSYS_WRITE_TOKEN: {said}")
        all_rejected = path == "/interactions" and answer.status_code == 422
        if not (answer.ok or all_rejected or (answer.status_code in BUSY and body is not None)):
            raise TrafficError(f"{method} {url} answered {answer.status_code}: {said}")
        return answer


class Crowd:
    """The customers of `world` who come one after the other."""

    def __init__(self, world: World, seed: int) -> None:
        self._world, self._rng = world, np.random.default_rng([seed, time.time_ns() >> 20])
        self._numbers = {product: n for n, product in enumerate(world.shop.product_ids)}
        self._began = time.time()
        self._open: list[Visit] = []
        self._at_carts: deque[Visit] = deque()

    def next(self) -> tuple[Visit, str]:
        """Who is shown a list next, and where: whoever put something into the cart, beside it."""
        if self._at_carts:
            return self._at_carts.popleft(), CART
        if self._open and self._rng.random() < GOES_ON:
            return self._open[int(self._rng.integers(len(self._open)))], "product"
        customer = int(self._rng.choice(self._world.customers, p=self._world.activity))
        guest = bool(self._rng.random() < GUESTS)
        session_id = f"{PREFIX}{self._rng.bytes(8).hex()}"
        user_id = session_id if guest else str(self._world.customer_ids[customer])
        visit = Visit(customer, guest, session_id, user_id, [])
        self._open = [*self._open[-OPEN_VISITS + 1 :], visit]
        return visit, "home"

    def react(self, visit: Visit, answer: dict[str, Any], placement: str, front: Front) -> None:
        """Do with the list of `answer` what the customer does, now and later."""
        shown = [one["product_id"] for one in answer["recommendations"]]
        if not shown:
            return
        numbers = np.array([self._numbers.get(one, -1) for one in shown])
        deeds = self._deeds(visit, numbers, placement)
        if carted := [shown[place] for place in np.flatnonzero(deeds.carted[0]).tolist()]:
            cart = dict.fromkeys([*visit.cart, *carted])
            visit.cart[:] = list(cart)[-MOST_IN_CART:]
            self._at_carts.append(visit)
        names = {
            "recommendation_id": answer["recommendation_id"],
            "placement": placement,
            "session_id": visit.session_id,
        } | ({} if visit.guest else {"user_id": visit.user_id})
        for kind, (done, seconds) in deeds.by_kind().items():
            for place in np.flatnonzero(done[0]).tolist():
                event: dict[str, Any] = {
                    # One list, one place, one kind: sent again, it is the same event.
                    "event_id": f"{PREFIX}{answer['recommendation_id']}-{kind}-{place}",
                    schema.PRODUCT: shown[place],
                    schema.KIND: str(kind),
                    **names,
                }
                price = answer["recommendations"][place]["price"]
                if kind is Kind.PURCHASE and price is not None:
                    event[schema.VALUE] = price
                front.happens(float(seconds[0, place]), event)
        if not visit.guest:
            bought = numbers[deeds.bought[0] & (numbers >= 0)]
            self._world.buy(np.full(len(bought), visit.customer), bought, self._day)

    @property
    def _day(self) -> float:
        return (time.time() - self._began) / 86_400

    def _deeds(self, visit: Visit, numbers: Int64Array, placement: str) -> Deeds:
        customer, known = np.array([visit.customer]), np.maximum(numbers, 0)
        drawn = self._world.attraction(customer, np.array([visit.guest]))[:, known]
        if placement == CART:
            cart = [self._numbers[one] for one in visit.cart if one in self._numbers]
            drawn[:, np.isin(known, self._world.partners[cart])] += COMPLETES
        drawn[:, numbers < 0] = UNKNOWN_PRODUCT
        need = self._world.need(customer[:, None], known[None, :], self._day)
        return behave(drawn, need, np.zeros(1), self._rng)


def send_traffic(
    settings: Settings,
    world: World,
    service: Service,
    *,
    seconds: float,
    rate: float,
    seed: int,
    tell: Callable[[str], None],
) -> dict[str, Any]:
    """Ask the `service` for `rate` lists a second for so many `seconds`, or until Ctrl-C, and send
    what customers do with them. `tell` gets a line every five seconds.

    Returns how many ``lists``, ``events`` (and how many of each kind), ``refused`` ones, ``busy``
    answers, events ``to_come`` that happen later, and ``seconds``. Raises `InputError` if the
    service serves another shop than the sample, `TrafficError` if it is not there or wants a token.
    """
    front, crowd, zone = Front(service), Crowd(world, seed), load_zone(settings)
    require_sample(settings, open_version(settings, front.served_version()))
    began, started = datetime.now(zone), time.monotonic()
    # First: what is simulated must not stand there without the note, even if this is killed.
    note_traffic(settings, began, began, lists=0, events=0)
    try:
        try:
            _drive(front, crowd, seconds, rate, tell)
        except KeyboardInterrupt:
            tell("stopped by hand; what has happened is sent")
        front.send()
    finally:
        lists, events = front.counts["lists"], front.counts["events"]
        note_traffic(settings, began, datetime.now(zone), lists, events)
    counts = {name: front.counts[name] for name in ("lists", "events", *Kind, "refused", "busy")}
    passed = time.monotonic() - started
    return {**counts, "to_come": front.to_come, "seconds": round(passed, 1)}


def _drive(
    front: Front, crowd: Crowd, seconds: float, rate: float, tell: Callable[[str], None]
) -> None:
    started = time.monotonic()
    asked, sent, told = 0, 0.0, 0.0
    while (passed := time.monotonic() - started) < seconds:
        if asked < passed * rate:
            visit, placement = crowd.next()
            asked += 1
            if (answer := front.recommend(visit, placement)) is not None:
                crowd.react(visit, answer, placement, front)
        else:
            time.sleep(min(_IDLE_SECONDS, 1 / rate))
        if passed - sent >= SEND_SECONDS:
            front.send()
            sent = passed
        if passed - told >= TELL_SECONDS:
            tell(_line(front.counts, passed))
            told = passed


def _line(counts: Counter[str], passed: float) -> str:
    kinds = ", ".join(f"{counts[kind]} {kind}" for kind in Kind if counts[kind])
    rate = counts["lists"] / max(passed, 0.001)
    return f"{counts['lists']} lists ({rate:.1f}/s), {counts['events']} events: {kinds or 'none'}"
