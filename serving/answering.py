"""From a request's values to an answer's: what one user gets, from one snapshot."""

import asyncio
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import numpy as np

from recsys.arrays import Int32Array
from serving.catalogue import filter_products
from serving.problems import ProblemError
from serving.ranking import Ranked, Wanted
from serving.recommending import Recommended, history_of, recommend
from serving.request_log import Answered
from serving.schemas import Filters, RecommendRequest
from serving.service import Service
from serving.snapshot import Snapshot

_NOTHING = np.zeros(0, dtype=np.int32)


def serving_snapshot(service: Service, user_id: object = None) -> Snapshot:
    """The snapshot in service (for this user, if given). Raises a 503 problem if there is none."""
    engine = service.engine
    snapshot = engine.snapshot if user_id is None else engine.for_user(str(user_id))
    if snapshot is None:
        raise ProblemError(
            503, "No model is being served yet: train one, then deploy it.", {"Retry-After": "60"}
        )
    return snapshot


def check_topk(service: Service, topk: int) -> None:
    if topk > service.config.max_topk:
        raise ProblemError(
            422, f"topk: at most {service.config.max_topk} are allowed, {topk} were asked for."
        )


def wanted_by(
    snapshot: Snapshot, filters: Filters, topk: int, exclude_seen: bool, exclude: list[Any]
) -> Wanted:
    """What the request asks for, in column numbers of the snapshot."""
    catalogue = snapshot.catalogue
    allowed = filter_products(
        catalogue, filters.brands, filters.categories, filters.min_price, filters.max_price
    )
    return Wanted(topk, exclude_seen, allowed, columns_of(snapshot, exclude))


def columns_of(snapshot: Snapshot, product_ids: list[Any]) -> Int32Array:
    """Column numbers of the products that the model knows."""
    if not product_ids:
        return _NOTHING
    index = snapshot.catalogue.index
    known = [index[str(product)] for product in product_ids if str(product) in index]
    return np.array(known, dtype=np.int32)


def recommend_now(service: Service, snapshot: Snapshot, body: RecommendRequest) -> Recommended:
    """One user's list."""
    user_id = str(body.user_id)
    live = service.live.of(user_id)
    if not live:
        made = _made_in_advance(snapshot, user_id, body)
        if made is not None:
            return made
    now = int(time.time())
    viewed = [str(product) for product in body.history]
    history = history_of(snapshot, user_id, live, viewed, now)
    wanted = wanted_by(snapshot, body, body.topk, body.exclude_seen, body.exclude)
    return recommend(snapshot, history, wanted, now)


def _made_in_advance(
    snapshot: Snapshot, user_id: str, body: RecommendRequest
) -> Recommended | None:
    """The list that was made when the model was loaded, None if it does not do."""
    if snapshot.lists is None or not body.exclude_seen or body.history or body.has_filters:
        return None
    position = snapshot.position(user_id)
    if position is None:
        return None
    excluded = columns_of(snapshot, body.exclude)
    ranked = snapshot.lists.first(position, body.topk, excluded)
    return None if ranked is None else Recommended(ranked, None)


async def recommend_beside(
    service: Service, snapshot: Snapshot, body: RecommendRequest
) -> Recommended:
    """The same on the event loop for a quick model, in a thread beside it for a slow one."""
    return await service.compute(snapshot.inline, recommend_now, service, snapshot, body)


def listed(snapshot: Snapshot, ranked: Ranked) -> list[dict[str, Any]]:
    """The products of a list as they are shown (`serving.schemas.Recommendation`)."""
    catalogue = snapshot.catalogue
    ids, names = catalogue.item_ids, catalogue.names
    brands, prices = catalogue.brands, catalogue.prices
    return [
        {
            "product_id": ids[item],
            "score": score,
            "rank": rank,
            "product_name": names[item],
            "brand": brands[item],
            "price": prices[item],
        }
        for rank, (item, score) in enumerate(zip(ranked.items, ranked.scores, strict=True), 1)
    ]


@dataclass(slots=True)
class Note:
    """One request on its way to the request log, with its error if the block ends with one.

    `latency_ms` is there when the block is left.
    """

    service: Service
    endpoint: str
    user_id: object
    topk: int | None
    made: Recommended | None = None
    model_id: str | None = None
    latency_ms: float = 0.0
    _started: float = 0.0

    def of(self, snapshot: Snapshot) -> Snapshot:
        """Remember which model answers."""
        self.model_id = snapshot.model_id
        return snapshot

    def __enter__(self) -> Self:
        self._started = time.perf_counter()
        return self

    def __exit__(
        self, kind: object, fault: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.latency_ms = (time.perf_counter() - self._started) * 1000
        made, user_id = self.made, self.user_id
        method = made.fallback_method if made else None
        status, error = (200, None) if fault is None else _outcome(fault)
        self.service.requests.add(
            Answered(
                time.time(),
                self.endpoint,
                None if user_id is None else str(user_id),
                self.topk,
                round(self.latency_ms, 3),
                None if made is None else method is not None,
                method,
                error,
                self.model_id,
                status,
            )
        )


def noted(
    service: Service, endpoint: str, *, user_id: object = None, topk: int | None = None
) -> Note:
    """Log the request that is answered in the ``with`` block."""
    return Note(service, endpoint, user_id, topk)


def _outcome(fault: BaseException) -> tuple[int, str]:
    """Status of the answer to a request that ended with `fault`, and what the log says of it."""
    if isinstance(fault, ProblemError):
        return fault.status, fault.detail
    # A cancelled request is one that took too long: the guard answers it.
    return 503 if isinstance(fault, asyncio.CancelledError) else 500, type(fault).__name__
