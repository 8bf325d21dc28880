"""A model that gives everybody what is popular is served, and nobody is told that it is theirs."""

from datetime import UTC, datetime

import pytest

from recsys.deployment import DeploymentConfig, VerifyConfig
from recsys.deployment.gate import plan_deployment
from recsys.deployment.job import deploy
from recsys.experiments.definitions import Guardrails
from recsys.experiments.guardrails import broken_guardrail
from recsys.experiments.state import Experiments
from recsys.health.config import MetricsConfig
from recsys.health.service import judged, service_metrics
from recsys.models.base import Model
from recsys.models.hybrid import Hybrid
from recsys.models.popularity import Popularity, RecentPopularity
from recsys.request_log import read_traffic_by_model
from recsys.settings import Settings
from tests.deployment.conftest import client_of, running_service
from tests.ports import find_free_port
from tests.serving.shops import ITEMS, add_model, histories
from tests.serving.test_experiments import USER_IDS, definition
from tests.serving.test_served import asked

MODELS: list[tuple[str, type[Model], dict]] = [
    ("popularity_20250115_100000", Popularity, {}),
    ("recent_popularity_20250115_100000", RecentPopularity, {}),
    ("hybrid_20250115_100000", Hybrid, {"weights": {"item_knn": 0.0, "als": 0.0}}),
]
POPULAR = MODELS[1][0]


def add_popular(settings: Settings, select: bool = True) -> None:
    model = RecentPopularity().fit(histories(), ITEMS)
    add_model(settings, POPULAR, model=model, select=select)


@pytest.mark.parametrize(("model_id", "kind", "parameters"), MODELS)
def test_each_list_says_that_it_is_what_is_popular(settings: Settings, model_id, kind, parameters):
    add_model(settings, model_id, model=kind.create(parameters).fit(histories(), ITEMS))
    answers, lists = asked(
        settings,
        ("/recommend", {"user_id": 3, "topk": 5, "explain": True}),
        ("/recommend", {"user_id": 3}),
        ("/recommend", {"user_id": "nobody"}),
        ("/recommend", {"user_id": 3, "brands": ["Đẹp"]}),
        ("/similar_items", {"product_id": "p3"}),
        ("/bought_together", {"product_ids": ["p3"]}),
        ("/batch_recommend", {"user_ids": [3, 4]}),
    )
    [*single, batch] = answers
    for answer in [*single, *batch["results"]]:
        assert (answer["fallback"], answer["fallback_method"]) == (True, "popularity")
        assert answer["count"] == len(answer["recommendations"]) > 0
    reason = "popular" if kind is Popularity else "trend"
    assert {one["reason"]["kind"] for one in single[0]["recommendations"]} == {reason}
    assert {one.fallback_method for one in lists} == {"popularity"}
    assert {letter for one in lists for letter in one.sources} == {"p"}


def test_a_popular_model_in_service_is_no_failure_of_it(settings: Settings):
    add_popular(settings)
    asked(settings, *[("/recommend", {"user_id": number}) for number in range(30)])
    metrics = service_metrics(settings, MetricsConfig(), datetime.now(UTC))
    assert metrics["requests"] == metrics["known_requests"] == 30
    assert judged(metrics, 10)["fallback_rate"] == metrics["fallback_rate"] == 0


def test_a_side_with_a_popular_model_is_marked_and_not_stopped_for_it(settings: Settings):
    add_model(settings, "als_1")
    add_popular(settings, select=False)
    sides = [
        {"name": "today", "share": 0.5},
        {"name": "new", "share": 0.5, "model_id": POPULAR},
    ]
    Experiments(settings).start(definition(variants=sides), "test")
    answers, lists = asked(settings, *[("/recommend", {"user_id": one}) for one in USER_IDS])
    known = [one for one, user in zip(answers, USER_IDS, strict=True) if user.isdigit()]
    methods = {(one["model_id"], one["fallback_method"]) for one in known}
    assert methods == {("als_1", None), (POPULAR, "popularity")}
    assert {one.sources for one in lists if one.model_id == POPULAR} == {"p" * 10}
    traffic = {one["model_id"]: one for one in read_traffic_by_model(settings.service_db, 60)}
    limits = Guardrails(min_requests=10, max_latency_ratio=1000)
    assert broken_guardrail(traffic[POPULAR], traffic["als_1"], limits) is None


def test_a_popular_model_can_be_deployed(settings: Settings):
    config = DeploymentConfig(patience_seconds=0.5, verify=VerifyConfig(sample_users=3))
    port = find_free_port()
    client = client_of(port, config)
    add_model(settings, "als_1")
    with running_service(settings, port):
        add_popular(settings)
        plan = plan_deployment(settings, client, config, model_id=POPULAR)
        summary = deploy(settings, client, config, plan)
        assert client.serving_model() == POPULAR
    assert summary["status"] == "success"
