"""The FastAPI application."""

import asyncio
import contextlib
import logging
import mmap
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from threadpoolctl import threadpool_limits
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from recsys.config import ConfigError, load_config
from recsys.data.config import DataConfig
from recsys.data.sources import id_rules
from recsys.errors import InputError
from recsys.ids import IdRules
from recsys.request_log import RequestLog
from recsys.schedule import load_zone
from recsys.settings import Settings, load_settings
from serving import problems, shared
from serving.config import ServiceEnvironment, ServingConfig, read_environment
from serving.engine import Engine, LocalCoordinator, start_with_any
from serving.guard import MAX_CLIENT_BYTES_MINUTE, Guard
from serving.housekeeping import Housekeeping
from serving.interactions import Intake, LiveEvents
from serving.routes import administration, demo, interactions, lists, operations
from serving.service import Service, WorkerPlace

logger = logging.getLogger(__name__)


def create_app(
    settings: Settings | None = None,
    environment: ServiceEnvironment | None = None,
    place: WorkerPlace | None = None,
) -> FastAPI:
    """The service over the state in `settings`; the first two arguments default to the
    environment's. `place` is the worker's place among others, None for a process of its own.

    Raises
    ------
    ConfigError
        If ``serving.yaml`` or the environment has a bad value.
    """
    settings = settings or load_settings()
    environment = environment or read_environment()
    config = load_config(settings, ServingConfig)
    memory = shared.attach(place.shared_memory if place else None)
    slot = place.slot if place else 0

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        # One thread a request: requests run beside each other, BLAS threads would only fight.
        with threadpool_limits(limits=1, user_api="blas"):
            service = await asyncio.to_thread(
                open_service, settings, config, environment, memory, slot
            )
            app.state.service = service
            housekeeping = Housekeeping(service)
            try:
                if place is None:
                    await asyncio.to_thread(start_with_any, settings, service.engine)
                else:
                    service.coordinator = place.coordinator
                    await place.join(service)
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
    for module in (interactions, operations, administration, demo):
        app.include_router(module.router)
    problems.install(app)
    describe(app, config, environment)
    if config.allowed_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=config.allowed_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["Content-Type"],
        )
    app.add_middleware(
        Guard,
        config=config,
        requests=shared.ClientLimit(memory, config.requests_per_client_minute),
        received=shared.ClientLimit(memory, MAX_CLIENT_BYTES_MINUTE, of_bytes=True),
        counters=shared.Counters(memory, slot),
    )
    if environment.trusted_proxies:
        # Around the guard: the client it counts is the nearest one that is no trusted proxy.
        trusted = list(environment.trusted_proxies)
        app.add_middleware(ProxyHeadersMiddleware, trusted_hosts=trusted)
    return app


def describe(app: FastAPI, config: ServingConfig, environment: ServiceEnvironment) -> None:
    """Say in the OpenAPI document what is configured: how many recommendations may be asked for,
    and whether interactions need a token."""
    make = app.openapi

    def openapi() -> dict[str, Any]:
        document = make()
        for schema in document["components"]["schemas"].values():
            topk = schema.get("properties", {}).get("topk")
            if topk is not None and "maximum" in topk:
                topk["maximum"] = config.max_topk
        if not environment.write_tokens:
            document["paths"]["/interactions"]["post"].pop("security", None)
        return document

    app.openapi = openapi  # type: ignore[method-assign]


def open_service(
    settings: Settings,
    config: ServingConfig,
    environment: ServiceEnvironment,
    memory: mmap.mmap,
    slot: int,
) -> Service:
    """What the routes need, without a model yet."""
    engine = Engine(settings, config)
    live = LiveEvents(
        settings.home / "data" / "live_events.db",
        config.live_interaction_days,
        shared.ChangeSign(memory),
    )
    return Service(
        settings=settings,
        config=config,
        environment=environment,
        engine=engine,
        coordinator=LocalCoordinator(settings, engine),
        slot=slot,
        counters=shared.Counters(memory, slot),
        live=live,
        intake=Intake(settings, config, live),
        earliest=_earliest(settings),
        ids=_id_rules(settings),
        requests=RequestLog(
            settings.service_db,
            settings.logs / "service" / "recommender.log",
            load_zone(settings),
        ),
    )


def _earliest(settings: Settings) -> datetime:
    """From when on the refresh takes interactions. A mistake in its configuration must not stop the
    service, here and below."""
    try:
        return load_config(settings, DataConfig).earliest_time
    except ConfigError as error:
        logger.error("data.yaml cannot be read, the defaults count | reason=%s", error)
        return DataConfig().earliest_time


def _id_rules(settings: Settings) -> IdRules:
    """What the refresh takes for ids."""
    try:
        return id_rules(settings)
    except InputError as error:
        logger.error("The source cannot be read, the default ids count | reason=%s", error)
        return IdRules()
