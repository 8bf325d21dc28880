"""Pages for people: what customers would see, and how to ask for it."""

import asyncio
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import numpy as np
from fastapi import APIRouter, Depends, Query
from fastapi.responses import Response
from fastapi.security import HTTPAuthorizationCredentials
from pydantic import BaseModel, Field

from recsys.data.simulated import is_sample
from recsys.merchandising.recommending import Snapshot, history_of
from recsys.schema import Kind
from serving.answering import who_of
from serving.problems import documented
from serving.routes.administration import bearer, require_admin
from serving.schemas import IdText
from serving.service import Running, Service

router = APIRouter(tags=["demo"])

_EXAMPLES = 4
_MOST_DONE = 30
_MOST_PICTURES = 100
_KINDS = [kind.value for kind in Kind]  # by the codes of `recsys.models.kinds`


class Example(BaseModel):
    """A product to ask for."""

    id: str
    name: str


class ExampleCustomer(BaseModel):
    """A customer to ask for."""

    id: str
    known: bool = Field(description="Whether the model has learnt of them.")


class Examples(BaseModel):
    """Customers and products of the model in service."""

    user: list[ExampleCustomer]
    product: list[Example]


class Pictures(BaseModel):
    """Pictures of products, by their ids."""

    pictures: dict[str, str] = Field(description="Addresses; only of those that have a picture.")


class CustomerAsked(BaseModel):
    """Whose history is asked for; in a body, because addresses are logged and an id may be of any
    characters."""

    user_id: IdText


class Done(BaseModel):
    """What a customer did with a product."""

    product_id: str
    product_name: str
    brand: str
    price: float | None = Field(description="Dong; null when unknown.")
    kind: str = Field(description="As of `/interactions`.")
    liked: bool = Field(description="False of a rating with one or two stars, and of a dismissal.")
    at: datetime


class CustomerHistory(BaseModel):
    """What is known of a customer, the newest first."""

    user_id: str
    history: list[Done] = Field(description=f"At most {_MOST_DONE}.")


def _serve(path: str, name: str, kind: str) -> None:
    # Read once: no part of a request ever becomes a path.
    content = (Path(__file__).parents[1] / "demo" / name).read_bytes()

    @router.get(path, include_in_schema=False)
    async def page() -> Response:
        return Response(content, media_type=f"text/{kind}; charset=utf-8")


_serve("/demo", "index.html", "html")
_serve("/demo/texts.js", "texts.js", "javascript")
_serve("/demo/demo.js", "demo.js", "javascript")
_serve("/demo/demo.css", "demo.css", "css")
_serve("/docs", "docs.html", "html")
_serve("/docs/docs.js", "docs.js", "javascript")


async def require_viewer(
    service: Running, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]
) -> None:
    """Lets everybody on this machine look at customers who were made up, and the bearer of the
    admin token at real ones."""
    if not await asyncio.to_thread(_all_made_up, service):
        await require_admin(service, credentials)


@router.get(
    "/demo/examples", responses=documented(429, 503), summary="What to try on the demo page"
)
async def examples(service: Running) -> Examples:
    """A few known customers, if they are made up, a stranger, and the most popular products."""
    snapshot = service.snapshot()
    made_up = await asyncio.to_thread(_all_made_up, service)
    samples = (snapshot.artifact.manifest.get("sample_users") or []) if made_up else []
    known = [str(user) for user in samples if not service.forgotten.hides(user)][:_EXAMPLES]
    users = [ExampleCustomer(id=user, known=True) for user in known]
    users.append(ExampleCustomer(id="khach-moi", known=False))
    catalogue = snapshot.catalogue
    usable = np.where(catalogue.available, snapshot.popularity, -np.inf)
    best = np.argsort(-usable, kind="stable")[:_EXAMPLES].tolist()
    products = [
        Example(id=catalogue.item_ids[item], name=catalogue.names[item][:60]) for item in best
    ]
    return Examples(user=users, product=products)


@router.get("/demo/pictures", responses=documented(422, 429, 503), summary="Pictures of products")
async def pictures(
    service: Running,
    product_id: Annotated[list[IdText], Query(max_length=_MOST_PICTURES, description="Products.")],
) -> Pictures:
    """Where the shop's pictures of the products are, as its catalogue says."""
    catalogue = service.snapshot().catalogue
    found = {one: catalogue.index.get(one) for one in product_id}
    shown = {one: catalogue.pictures[at] for one, at in found.items() if at is not None}
    return Pictures(pictures={one: address for one, address in shown.items() if address})


@router.post(
    "/demo/customer",
    dependencies=[Depends(require_viewer)],
    responses=documented(400, 401, 403, 408, 413, 422, 429, 503),
    summary="What the demo page shows of a customer",
)
async def customer(body: CustomerAsked, service: Running) -> CustomerHistory:
    """What the model and the last days know of a customer; nothing of one who is unknown or
    forgotten. Customers of the sample shop are shown to everybody on this machine, real ones to the
    bearer of the admin token."""
    snapshot = service.snapshot()
    done = await service.compute(False, _done, service, snapshot, body.user_id)
    return CustomerHistory(user_id=body.user_id, history=done)


def _all_made_up(service: Service) -> bool:
    """Whether the model in service has learnt from a sample shop, and that is the shop. Where
    others reach the service its events may be of real customers, whatever files it began with."""
    if not service.environment.is_local:
        return False
    snapshot = service.snapshot()
    versions = {snapshot.artifact.manifest.get("data_version"), snapshot.catalogue.source}
    # The source is the model itself where no version is published.
    return all(is_sample(service.settings, str(one)) for one in versions - {snapshot.model_id})


def _done(service: Service, snapshot: Snapshot, user_id: str) -> list[Done]:
    if service.forgotten.hides(user_id):
        return []
    who = who_of(user_id, None)
    live, catalogue = service.live.of_all(who), snapshot.catalogue
    history = history_of(snapshot, who[0], live, [], int(time.time()))
    newest = np.argsort(-history.times, kind="stable")[:_MOST_DONE].tolist()
    return [
        Done(
            product_id=catalogue.item_ids[item],
            product_name=catalogue.names[item],
            brand=catalogue.brands[item],
            price=catalogue.prices[item],
            kind=_KINDS[history.kinds[entry]],
            liked=bool(history.confidence[entry] > 0),
            at=datetime.fromtimestamp(int(history.times[entry]), UTC),
        )
        for entry in newest
        for item in [int(history.items[entry])]
    ]
