"""Pages for people: what customers would see, and how to ask for it."""

from pathlib import Path

import numpy as np
from fastapi import APIRouter
from fastapi.responses import Response
from pydantic import BaseModel

from serving.problems import documented
from serving.service import Running

router = APIRouter(tags=["demo"])

_EXAMPLES = 4


class Example(BaseModel):
    """Something to ask for."""

    id: str
    name: str


class Examples(BaseModel):
    """Customers and products of the model in service."""

    user: list[Example]
    product: list[Example]


def _serve(path: str, name: str, kind: str) -> None:
    # Read once: no part of a request ever becomes a path.
    content = (Path(__file__).parents[1] / "demo" / name).read_bytes()

    @router.get(path, include_in_schema=False)
    async def page() -> Response:
        return Response(content, media_type=f"text/{kind}; charset=utf-8")


_serve("/demo", "index.html", "html")
_serve("/demo/demo.js", "demo.js", "javascript")
_serve("/demo/demo.css", "demo.css", "css")
_serve("/docs", "docs.html", "html")
_serve("/docs/docs.js", "docs.js", "javascript")


@router.get(
    "/demo/examples", responses=documented(429, 503), summary="What to try on the demo page"
)
async def examples(service: Running) -> Examples:
    """A few known customers, a stranger, and the most popular products."""
    snapshot = service.snapshot()
    samples = snapshot.artifact.manifest.get("sample_users") or []
    known = [user for user in samples if not service.forgotten.hides(user)]
    users = [Example(id=str(user), name=f"Khách {user}") for user in known[:_EXAMPLES]]
    users.append(Example(id="khach-moi", name="Khách mới"))
    catalogue = snapshot.catalogue
    usable = np.where(catalogue.available, snapshot.popularity, -np.inf)
    best = np.argsort(-usable, kind="stable")[:_EXAMPLES].tolist()
    products = [
        Example(id=catalogue.item_ids[item], name=catalogue.names[item][:60]) for item in best
    ]
    return Examples(user=users, product=products)
