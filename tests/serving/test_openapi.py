"""Whatever the OpenAPI document allows is answered as the document says, and never with a 5xx."""

from collections.abc import Iterator

import pytest
import schemathesis
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from recsys.settings import Settings
from serving.app import create_app
from serving.config import ServiceEnvironment
from tests.ports import find_free_port
from tests.serving.service_process import service_in_thread
from tests.serving.shops import add_model

pytestmark = pytest.mark.boots

TOKEN = "a-token-for-tests"


@pytest.fixture(scope="module")
def api_schema(tmp_path_factory: pytest.TempPathFactory) -> Iterator[object]:
    settings = Settings(tmp_path_factory.mktemp("openapi"))
    add_model(settings, "als_1")
    port = find_free_port()
    app = create_app(settings, ServiceEnvironment(port=port, admin_token=TOKEN))
    with service_in_thread(app, port):
        yield schemathesis.openapi.from_url(f"http://127.0.0.1:{port}/openapi.json")


def test_answers_are_as_documented(api_schema):
    tried = set()
    for found in api_schema.get_all_operations():
        operation = found.ok()
        tried.add(operation.path)

        @hypothesis_settings(
            max_examples=40,
            suppress_health_check=list(HealthCheck),
            derandomize=True,
            database=None,
        )
        @given(case=operation.as_strategy())
        def check(case: schemathesis.Case) -> None:
            checks = [status_code_conformance, content_type_conformance]
            checks.append(response_schema_conformance)
            # Without embeddings a search is a documented 503.
            if case.path != "/search":
                checks.append(not_a_server_error)
            case.call_and_validate(headers={"Authorization": f"Bearer {TOKEN}"}, checks=checks)

        check()
    assert len(tried) >= 11


def test_every_operation_says_what_it_is_for_and_how_it_fails(api_schema):
    document = api_schema.raw_schema
    for path, operations in document["paths"].items():
        for operation in operations.values():
            assert operation["summary"], path
            assert operation["description"], path
            assert "503" in operation["responses"], path
    for name in ("RecommendRequest", "BatchRequest", "SimilarRequest", "SearchRequest"):
        assert document["components"]["schemas"][name]["examples"], name
    assert "Problem" in document["components"]["schemas"]
