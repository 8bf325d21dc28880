"""Pages for people: what customers would see, and how to ask for it."""

from pathlib import Path

import numpy as np
from fastapi import APIRouter
from fastapi.responses import Response
from pydantic import BaseModel

from serving.problems import documented
from serving.recommending import Snapshot
from serving.service import Running, serving_snapshot

router = APIRouter(tags=["demo"])

_EXAMPLES = 4
_FOLDER = Path(__file__).parents[1] / "demo"
# Read once: no part of a request ever becomes a path.
_DOCS = (_FOLDER / "docs.html").read_bytes()
_DOCS_SCRIPT = (_FOLDER / "docs.js").read_bytes()
_PAGE = (_FOLDER / "index.html").read_bytes()
_SCRIPT = (_FOLDER / "demo.js").read_bytes()
_STYLE = (_FOLDER / "demo.css").read_bytes()


class Example(BaseModel):
    """Something to ask for."""

    id: str
    name: str


class Examples(BaseModel):
    """Customers and products of the model in service."""

    user: list[Example]
    product: list[Example]


@router.get("/demo", include_in_schema=False)
async def page() -> Response:
    return Response(_PAGE, media_type="text/html; charset=utf-8")


@router.get("/demo/demo.js", include_in_schema=False)
async def script() -> Response:
    return Response(_SCRIPT, media_type="text/javascript; charset=utf-8")


@router.get("/demo/demo.css", include_in_schema=False)
async def style() -> Response:
    return Response(_STYLE, media_type="text/css; charset=utf-8")


@router.get("/docs", include_in_schema=False)
async def docs() -> Response:
    return Response(_DOCS, media_type="text/html; charset=utf-8")


@router.get("/docs/docs.js", include_in_schema=False)
async def docs_script() -> Response:
    return Response(_DOCS_SCRIPT, media_type="text/javascript; charset=utf-8")


@router.get(
    "/demo/examples", responses=documented(429, 503), summary="What to try on the demo page"
)
async def examples(service: Running) -> Examples:
    """A few known customers, a stranger, and the most popular products."""
    snapshot: Snapshot = serving_snapshot(service)
    known = snapshot.artifact.manifest.get("sample_users") or []
    users = [Example(id=str(user), name=f"Khách {user}") for user in known[:_EXAMPLES]]
    users.append(Example(id="khach-moi", name="Khách mới"))
    catalogue = snapshot.catalogue
    usable = np.where(catalogue.available, snapshot.popularity, -np.inf)
    best = np.argsort(-usable, kind="stable")[:_EXAMPLES].tolist()
    products = [
        Example(id=catalogue.item_ids[item], name=catalogue.names[item][:60]) for item in best
    ]
    return Examples(user=users, product=products)
