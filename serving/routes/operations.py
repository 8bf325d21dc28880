"""What operators and their tools ask."""

import asyncio
import logging
import sqlite3
import time
from datetime import UTC, datetime

from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST

from recsys.models.storage import ArtifactError
from serving.answering import serving_snapshot
from serving.exposition import exposition
from serving.loading import try_out
from serving.problems import ProblemError, documented
from serving.schemas import Health, ModelInfo, Stats
from serving.service import Service
from serving.snapshot import Snapshot
from serving.stats import read_stats

logger = logging.getLogger(__name__)

router = APIRouter(tags=["operations"])


@router.get(
    "/health",
    response_model=Health,
    responses={503: {"model": Health, "description": "Recommendations do not work."}},
    summary="Do recommendations work?",
)
async def health(request: Request, response: Response) -> Health:
    """Tries a few recommendations: 200 and `healthy` mean that they work, 503 that they do not.

    `no_model`: nothing is deployed yet. `failing`: the served model gives no sound answer.
    """
    service: Service = request.app.state.service
    snapshot = service.engine.snapshot
    status, detail = await asyncio.to_thread(_examine, snapshot)
    if status != "healthy":
        response.status_code = 503
    return Health(
        status=status,
        model_id=snapshot.model_id if snapshot else None,
        model_type=snapshot.model_type if snapshot else None,
        detail=detail,
        uptime_seconds=time.time() - service.started_at,
    )


@router.get(
    "/model_info",
    response_model=ModelInfo,
    responses=documented(429, 503),
    summary="The model in service",
)
async def model_info(request: Request) -> ModelInfo:
    """What is known of the model that makes the answers."""
    snapshot = serving_snapshot(request.app.state.service)
    manifest = snapshot.artifact.manifest
    return ModelInfo(
        model_id=snapshot.model_id,
        model_type=snapshot.model_type,
        data_version=manifest.get("data_version"),
        created_at=manifest.get("created_at"),
        loaded_at=datetime.fromtimestamp(snapshot.loaded_at, UTC).isoformat(),
        users=len(snapshot.artifact.user_ids),
        items=len(snapshot.catalogue.item_ids),
        available_items=int(snapshot.catalogue.available.sum()),
        catalogue_version=snapshot.catalogue.source,
        embeddings=snapshot.content is not None,
        metrics=dict(manifest.get("metrics") or {}),
        hyperparameters=dict(manifest.get("hyperparameters") or {}),
    )


@router.get(
    "/stats",
    response_model=Stats,
    responses=documented(429, 503),
    summary="Traffic of the last day",
)
async def stats(request: Request) -> Stats:
    """Counts, rates and latencies from the request log, over all workers."""
    service: Service = request.app.state.service
    try:
        found = await service.compute(False, read_stats, service.settings.service_db)
    except sqlite3.Error as error:
        raise ProblemError(503, f"The request log cannot be read: {error}.") from error
    return Stats(
        **found,
        model_id=service.engine.model_id,
        uptime_seconds=time.time() - service.started_at,
        rows_waiting=service.requests.pending,
        rows_dropped=service.requests.dropped,
    )


@router.get(
    "/metrics",
    response_class=PlainTextResponse,
    responses=documented(429, 503),
    summary="Metrics for Prometheus",
)
async def metrics(request: Request) -> Response:
    """Counters of all workers since the service started, in Prometheus' text format."""
    return Response(exposition(request.app.state.service), media_type=CONTENT_TYPE_LATEST)


def _examine(snapshot: Snapshot | None) -> tuple[str, str]:
    if snapshot is None:
        return "no_model", "No model is being served yet: train one, then deploy it."
    try:
        milliseconds = try_out(snapshot)
    except ArtifactError as error:
        return "failing", str(error)
    except Exception as error:
        logger.exception("A trial recommendation failed | model_id=%s", snapshot.model_id)
        return "failing", f"A trial recommendation failed with {type(error).__name__}."
    return "healthy", f"Trial recommendations take {milliseconds:.2f} ms."
