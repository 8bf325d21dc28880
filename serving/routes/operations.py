"""What operators and their tools ask."""

import asyncio
import logging
import time
from datetime import UTC, datetime

from fastapi import APIRouter, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from recsys.merchandising.recommending import Snapshot
from recsys.merchandising.snapshots import try_out
from recsys.models.storage import ArtifactError
from recsys.request_log import read_stats
from serving.figures import Figures
from serving.problems import documented
from serving.reports import (
    Health,
    ModelInfo,
    Stats,
)
from serving.service import NO_MODEL, Running

logger = logging.getLogger(__name__)

router = APIRouter(tags=["operations"])


@router.get(
    "/health",
    responses={503: {"model": Health, "description": "Recommendations do not work."}},
    summary="Do recommendations work?",
)
async def health(service: Running, response: Response) -> Health:
    """Tries a few recommendations: 200 and `healthy` mean that they work, 503 that they do not.

    `no_model`: nothing is deployed yet. `failing`: the served model gives no sound answer."""
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


@router.get("/model_info", responses=documented(429, 503), summary="The model in service")
async def model_info(service: Running) -> ModelInfo:
    """What is known of the model that makes the answers."""
    snapshot = service.snapshot()
    manifest, rules = snapshot.artifact.manifest, service.rules
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
        rules=len(rules.current.rules),
        rules_sha256=rules.current.sha256,
        rules_problem=rules.problem,
        metrics=manifest.get("metrics") or {},
        hyperparameters=manifest.get("hyperparameters") or {},
    )


@router.get("/stats", responses=documented(429, 503), summary="Traffic of the last day")
async def stats(service: Running) -> Stats:
    """Counts, rates and latencies from the request log, over all workers."""
    return Stats(
        **await service.read_log(read_stats),
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
async def metrics(service: Running) -> Response:
    """Counters of all workers since the service started, and how it stands, in Prometheus' text
    format."""
    return Response(generate_latest(Figures(service)), media_type=CONTENT_TYPE_LATEST)


def _examine(snapshot: Snapshot | None) -> tuple[str, str]:
    if snapshot is None:
        return "no_model", NO_MODEL
    try:
        milliseconds = try_out(snapshot)
    except ArtifactError as error:
        return "failing", str(error)
    except Exception as error:
        logger.exception("A trial recommendation failed | model_id=%s", snapshot.model_id)
        return "failing", f"A trial recommendation failed with {type(error).__name__}."
    return "healthy", f"Trial recommendations take {milliseconds:.2f} ms."
