"""The FastAPI application."""

import asyncio
import contextlib
import functools
import json
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from threadpoolctl import threadpool_limits
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from recsys.config import load_config
from recsys.merchandising.placements import placements_in_force
from recsys.settings import Settings, load_settings
from serving import problems, shared
from serving.config import ServiceEnvironment, ServingConfig, read_environment
from serving.engine import Coordinator
from serving.examples import add_examples
from serving.guard import MAX_CLIENT_BYTES_MINUTE, Guard
from serving.housekeeping import Housekeeping
from serving.routes import (
    administration,
    customers,
    demo,
    interactions,
    lists,
    operations,
    rules,
)
from serving.service import Service
from serving.short_way import ShortWay


class WorkerPlace(NamedTuple):
    """A worker's place among the others: `memory` is a descriptor of `serving.shared` memory."""

    slot: int
    memory: int | None
    coordinator: Coordinator


def create_app(
    settings: Settings | None = None,
    environment: ServiceEnvironment | None = None,
    place: WorkerPlace | None = None,
) -> FastAPI:
    """The service over the state in `settings`; the first two arguments default to the
    environment's. `place` is the worker's place among others, None for a process of its own.

    Raises `ConfigError` if ``serving.yaml``, ``placements.yaml`` or the environment has a bad
    value."""
    settings = settings or load_settings()
    environment = environment or read_environment()
    config = load_config(settings, ServingConfig)
    placements_in_force(settings)
    slot, descriptor, coordinator = place or WorkerPlace(0, None, Coordinator(settings))
    memory = shared.attach(descriptor)
    parts = (settings, config, environment, coordinator, memory, slot)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        # One thread a request: requests run beside each other, BLAS threads would only fight.
        with threadpool_limits(limits=1, user_api="blas"):
            service = app.state.service = await asyncio.to_thread(Service, *parts)
            housekeeping = Housekeeping(service)
            try:
                await coordinator.join(service.engine)
                housekeeping.start()
                yield
            finally:
                await asyncio.to_thread(housekeeping.stop)
                await asyncio.to_thread(service.close)

    app = FastAPI(
        title="Recommendations",
        version="1",
        description="Product recommendations for the shop.",
        lifespan=lifespan,
        # FastAPI's pages load programs from elsewhere; ours is in `routes.demo`.
        docs_url=None,
        redoc_url=None,
    )
    app.include_router(lists.users)
    app.include_router(lists.products)
    for module in (interactions, operations, administration, customers, rules, demo):
        app.include_router(module.router)
    problems.install(app)
    _describe(app, config, environment)
    app.add_middleware(ShortWay, routes=lists.users.routes)
    app.add_middleware(
        Guard,
        config=config,
        requests=shared.ClientLimit(memory, config.requests_per_client_minute),
        received=shared.ClientLimit(memory, MAX_CLIENT_BYTES_MINUTE, of_bytes=True),
        counters=shared.Counters(memory, slot),
    )
    if config.allowed_origins:
        # Around the guard: a page has to be able to read why and for how long it was refused.
        app.add_middleware(
            CORSMiddleware,
            allow_origins=config.allowed_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["Content-Type"],
            expose_headers=["Retry-After"],
        )
    if environment.trusted_proxies:
        # Around the guard: the client it counts is the nearest one that is no trusted proxy.
        trusted = list(environment.trusted_proxies)
        app.add_middleware(ProxyHeadersMiddleware, trusted_hosts=trusted)
    return app


def _describe(app: FastAPI, config: ServingConfig, environment: ServiceEnvironment) -> None:
    """Say in the OpenAPI document what problems look like, how many recommendations may be asked
    for, whether interactions need a token, and examples of everything."""
    make = app.openapi

    @functools.cache  # it takes a tenth of a second, and anybody may ask
    def openapi() -> dict[str, Any]:
        document = make()
        schemas = document["components"]["schemas"]
        schemas.update(problems.schemas())
        for schema in schemas.values():
            if topk := schema.get("properties", {}).get("topk"):
                topk["maximum"] = config.max_topk
        if not environment.write_tokens:
            document["paths"]["/interactions"]["post"].pop("security", None)
        add_examples(document)
        # FastAPI has made floating point of all bounds, and the one of ids then reads as another.
        written: dict[str, Any] = json.loads(json.dumps(document), parse_float=_exactly)
        return written

    app.openapi = openapi  # type: ignore[method-assign]


def _exactly(text: str) -> int | float:
    number = float(text)
    return int(number) if number.is_integer() else number
