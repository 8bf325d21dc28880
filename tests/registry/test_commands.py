import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from typer.testing import CliRunner

from recsys.cli.registry import registry_app
from recsys.registry import Registry, RegistryError
from tests.registry.test_registry import add, select


@pytest.fixture
def command(settings, free_port, monkeypatch):
    monkeypatch.setenv("RECSYS_HOME", str(settings.home))
    monkeypatch.setenv("RECSYS_SERVICE_URL", f"http://127.0.0.1:{free_port}")

    def run(*arguments: str):
        result = CliRunner().invoke(registry_app, arguments)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return json.loads(result.stdout)

    return run


def test_list_shows_the_best(settings, command):
    add(settings, "a", low=0.3)
    add(settings, "b")
    select(settings)
    rows = {row["model_id"]: row for row in command("list", "--json")}
    assert rows["a"]["current_best"] is True
    assert rows["b"]["current_best"] is False


def test_compare_shows_figures_and_differences(settings, command):
    add(settings, "a", recall=0.2)
    add(settings, "b", recall=0.25)
    shown = command("compare", "a", "b")
    assert shown["metrics"]["recall_at_10"] == {"a": 0.2, "b": 0.25, "difference": 0.05}
    assert shown["metrics"]["newcomer_overlap"] == {"a": None, "b": None, "difference": None}
    assert shown["same_data"] is True


def test_archive_and_delete(settings, command):
    add(settings, "a")
    assert command("archive", "a") == {"archived": "a"}
    assert command("delete", "a") == {"deleted": "a"}
    assert Registry(settings).list() == []


def test_a_held_model_shows_and_can_be_released(settings, command):
    add(settings, "a")
    Registry(settings).hold("a")
    assert command("list", "--json")[0]["status"] == "held"
    assert command("release", "a") == {"released": "a"}
    assert command("list", "--json")[0]["status"] == "active"


def test_without_a_service_the_last_deployed_model_is_not_deleted(settings, command):
    add(settings, "a")
    settings.deployment_history.parent.mkdir(parents=True, exist_ok=True)
    settings.deployment_history.write_text(
        json.dumps({"deployments": [{"model_id": "a", "status": "success"}]})
    )
    with pytest.raises(RegistryError, match="serves"):
        command("delete", "a")


def test_a_model_on_trial_at_the_stacks_own_port_is_not_deleted(settings, command, monkeypatch):
    monkeypatch.delenv("RECSYS_SERVICE_URL")
    monkeypatch.setenv("RECSYS_SERVICE_PORT", "")  # put back afterwards

    class Service(BaseHTTPRequestHandler):
        def do_GET(self):
            body = json.dumps({"model_id": "a", "canary_model_id": "b"}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    for model_id in ("b", "c"):
        add(settings, model_id)
    with ThreadingHTTPServer(("127.0.0.1", 0), Service) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        (settings.home / ".env").write_text(f"RECSYS_SERVICE_PORT={server.server_port}\n")
        with pytest.raises(RegistryError, match="serves"):
            command("delete", "b")
        assert command("delete", "c") == {"deleted": "c"}
        server.shutdown()


def test_an_unknown_model_is_named(command):
    with pytest.raises(RegistryError, match="ghost"):
        command("archive", "ghost")
