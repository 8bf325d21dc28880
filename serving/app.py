"""The FastAPI application."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator

from fastapi import FastAPI
from threadpoolctl import threadpool_limits

from recsys.errors import InputError
from recsys.schedule import load_schedule
from recsys.settings import Settings, load_settings
from serving import problems
from serving.config import ServiceEnvironment, ServingConfig, load_config, read_environment
from serving.coordination import LocalCoordinator, models_to_start_with
from serving.engine import Engine
from serving.live import LiveEvents
from serving.request_log import RequestLog
from serving.routes import administration, operations, recommendations
from serving.service import Service

logger = logging.getLogger(__name__)


def create_app(
    settings: Settings | None = None, environment: ServiceEnvironment | None = None
) -> FastAPI:
    """The service over the state in `settings`; both arguments default to the environment's.

    Raises
    ------
    ConfigError
        If ``serving.yaml`` or the environment has a bad value.
    """
    settings = settings or load_settings()
    environment = environment or read_environment()
    config = load_config(settings)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        # One thread a request: requests run beside each other, BLAS threads would only fight.
        with threadpool_limits(limits=1, user_api="blas"):
            service = await asyncio.to_thread(start_service, settings, config, environment)
            app.state.service = service
            try:
                yield
            finally:
                await asyncio.to_thread(service.close)

    app = FastAPI(
        title="Recommendations",
        version="1",
        description="Product recommendations for the shop.",
        lifespan=lifespan,
    )
    app.include_router(recommendations.router)
    app.include_router(operations.router)
    app.include_router(administration.router)
    problems.install(app)
    return app


def start_service(
    settings: Settings, config: ServingConfig, environment: ServiceEnvironment
) -> Service:
    """Open what the routes need, and load the model to start with, if there is one."""
    engine = Engine(settings, config)
    service = Service(
        settings=settings,
        config=config,
        environment=environment,
        engine=engine,
        coordinator=LocalCoordinator(settings, engine),
        live=LiveEvents(settings.home / "data" / "live_events.db", config.live_interaction_days),
        requests=RequestLog(
            settings.service_db,
            settings.logs / "service" / "recommender.log",
            load_schedule(settings).zone,
            config.request_log,
        ),
    )
    for model_id in models_to_start_with(settings):
        try:
            engine.prepare(model_id)
            engine.commit(model_id)
            break
        except (InputError, OSError) as error:
            logger.error("Cannot start with this model | model_id=%s, reason=%s", model_id, error)
    return service
