"""The reference: FastAPI routes with the service's own request and response models and no work.

Run as a server: ``python -m benchmarks.serving.bare``.
"""

import os
from typing import Any

import uvicorn
from fastapi import FastAPI

from serving.schemas import (
    Recommendation,
    RecommendRequest,
    RecommendResponse,
    TogetherRequest,
    TogetherResponse,
)

app = FastAPI()


def _list(count: int) -> dict[str, Any]:
    return {
        "recommendation_id": "01990f5e-3c00-7000-8000-000000000000",
        "recommendations": [
            Recommendation(
                product_id=str(422_000_000 + rank),
                score=0.5 / rank,
                rank=rank,
                product_name=f"Sữa rửa mặt dịu nhẹ cho da nhạy cảm số {rank} 150ml",
                brand="Thương hiệu 7",
                price=120_000.0,
            )
            for rank in range(1, count + 1)
        ],
        "count": count,
        "fallback": False,
        "fallback_method": None,
        "model_id": "als_20250115_100000",
        "latency_ms": 0.1,
    }


ANSWER = RecommendResponse(user_id=1, **_list(10))
CART = ["422000007", "422000100", "422001000"]
TOGETHER = TogetherResponse(product_ids=CART, unknown=[], **_list(5))


@app.get("/health")
async def health() -> dict[str, str]:
    return {"status": "healthy"}


@app.post("/recommend")
async def recommend(body: RecommendRequest) -> RecommendResponse:
    return ANSWER


@app.post("/bought_together")
async def bought_together(body: TogetherRequest) -> TogetherResponse:
    return TOGETHER


if __name__ == "__main__":
    uvicorn.run(app, port=int(os.environ["RECSYS_SERVICE_PORT"]), access_log=False, log_config=None)
