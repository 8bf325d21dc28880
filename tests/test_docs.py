"""The pages name everything that can be called, set or seen, and nothing that is gone."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from fastapi.testclient import TestClient

from recsys.cli import app as command_line
from recsys.settings import REPOSITORY, Settings
from recsys.tracking import PipelineTracker
from serving.app import create_app
from serving.config import ServiceEnvironment
from tests.documented import code, pages, sections, spans, table

SOURCES = [
    *(REPOSITORY / "include").rglob("*.py"),
    *(REPOSITORY / "serving").rglob("*.py"),
]
METHODS = "GET|POST|PUT|PATCH|DELETE"
# Routes that FastAPI makes, the demo's page, and what Airflow and the monitor answer.
OTHER_ROUTES = re.compile(r"/(docs|demo|openapi\.json|api/v2/.*|auth/.*|recsys/.*)?")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    home = tmp_path_factory.mktemp("home")
    with TestClient(create_app(Settings(home), ServiceEnvironment())) as client:
        yield client


def test_every_route_stands_in_the_docs_and_no_other(service: TestClient) -> None:
    paths: dict[str, dict[str, Any]] = service.app.openapi()["paths"]  # type: ignore[attr-defined]
    routes = {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}
    named = {
        route
        for line in code()
        for route in re.findall(rf"\b(?:{METHODS}) /[\w/{{}}.]*", line)
        if not OTHER_ROUTES.fullmatch(route.split(" ")[1])
    }
    assert named == routes
    asked = {path for line in code() for path in re.findall(r"127\.0\.0\.1:8000(/[\w/.]*)", line)}
    assert {path for path in asked if not OTHER_ROUTES.fullmatch(path)} <= paths.keys()


def test_every_metric_stands_in_the_docs_and_no_other(service: TestClient) -> None:
    metrics = set(re.findall(r"^# TYPE (\w+)", service.get("/metrics").text, re.MULTILINE))
    named = {name for row in table("docs/serving.md", "metric") for name in spans(row[0])}
    assert named == metrics
    mentioned = {
        word
        for line in code()
        for word in re.findall(r"\brecsys_\w+", line)
        if word.endswith(("_total", "_seconds", "_bytes", "_ratio"))
    }
    figures = {name for row in table("docs/watching.md", "figure") for name in spans(row[0])}
    assert mentioned <= metrics | figures


def commands() -> dict[str, set[str]]:
    """The options of every command, by its words."""

    def walk(command: Any, *words: str) -> Iterator[tuple[str, set[str]]]:
        for name, inner in getattr(command, "commands", {}).items():
            yield from walk(inner, *words, name)
        if not hasattr(command, "commands"):
            options = {one for parameter in command.params for one in parameter.opts}
            yield " ".join(words), {one for one in options if one.startswith("--")}

    return dict(walk(typer.main.get_command(command_line)))


def test_every_command_and_option_stands_in_the_docs_and_no_other() -> None:
    rows = table("docs/commands.md", "command")
    named = {
        " ".join(word for word in spans(row[0])[0].split() if word.islower()): {
            option for span in spans(row[1]) for option in span.split() if option.startswith("--")
        }
        for row in rows
    }
    assert named == commands()


def test_every_command_line_in_the_docs_can_be_given() -> None:
    known = commands()
    for line in code():
        for given in re.findall(r"(?:-m |^|\./)recsys ([^#|>]*)", line):
            words = given.split()
            if not words or words[0] in ("airflow", "--help", "<job>", "..."):
                continue
            command = next(
                (" ".join(words[:n]) for n in (2, 1) if " ".join(words[:n]) in known), ""
            )
            assert command, line
            options = {word.split("=")[0] for word in words if re.match(r"--\w", word)}
            assert options <= known[command], line


def test_every_alert_stands_in_the_docs_and_no_other() -> None:
    rules = yaml.safe_load((REPOSITORY / "config" / "alerts_config.yaml").read_text())["alerts"]
    # Nobody has to look up what the test alert means.
    sent = {*rules, *(name for path in SOURCES for name in alerts_of(path))} - {"test_alert"}
    named = [name for row in table("docs/alerting.md", "alert") for name in spans(row[0])]
    assert [name for name in sent if not any(may_be(name, entry) for entry in named)] == []
    assert [entry for entry in named if not any(may_be(name, entry) for name in sent)] == []


def may_be(name: str, entry: str) -> bool:
    """Whether the two are one alert's name, where ``<...>`` stands for what is known later."""
    patterns = [re.sub("<[^>]*>", "[<>a-z_]+", text) for text in (name, entry)]
    return bool(re.fullmatch(patterns[0], entry) or re.fullmatch(patterns[1], name))


def alerts_of(path: Path) -> Iterator[str]:
    """The names under which a module sends alerts."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    values = {
        target.id: node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and node.args:
            called = getattr(node.func, "attr", getattr(node.func, "id", ""))
            name = text_of(node.args[0], values) if called in ("Alert", "send_alert") else ""
            if name.strip("<>"):
                yield name


def text_of(node: ast.AST, values: dict[str, ast.expr]) -> str:
    """The string that an expression gives, with ``<>`` for what is known later."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.Name) and node.id in values:
        return text_of(values[node.id], values)
    if isinstance(node, ast.JoinedStr):
        return "".join(text_of(part, values) for part in node.values)
    if isinstance(node, ast.FormattedValue):
        return text_of(node.value, values)
    return "<>"


def test_every_job_and_parameter_stands_in_the_docs_and_no_other() -> None:
    jobs = dict(job_of(path) for path in (REPOSITORY / "dags").glob("*.py"))
    for page in ("README.md", "README.vi.md"):
        assert {spans(row[0])[0] for row in table(page, "job")} == set(jobs), page
    forms = {spans(row[0])[0]: set(spans(row[1])) for row in table("docs/commands.md", "job")}
    assert forms == jobs


def job_of(path: Path) -> tuple[str, set[str]]:
    """The DAG id of a file, and the parameters of its trigger form."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "job_dag":
            given = {key.arg: key.value for key in node.keywords}
            params = given.get("params")
            keys = params.keys if isinstance(params, ast.Dict) else []
            return ast.literal_eval(node.args[0]), {ast.literal_eval(key) for key in keys if key}
    raise AssertionError(f"{path}: no job_dag")


def test_every_table_stands_in_the_docs_and_no_other() -> None:
    tables = {
        name
        for path in SOURCES
        for name in re.findall(r"CREATE TABLE IF NOT EXISTS (\w+)", path.read_text("utf-8"))
    }
    named = {
        name
        for text in pages().values()
        for words in re.findall(r"\btables? ((?:`\w+`(?:, | and )?)+)", text)
        for name in spans(words)
    }
    assert named == tables


COMING = "docs/coming-from-scripts.md"


def test_what_replaces_an_old_import_can_be_imported() -> None:
    lines = [spans(row[1])[0] for row in table(COMING, "cũ / old") if row[1].startswith("`from ")]
    assert len(lines) > 5
    for line in lines:
        exec(line, {})


def test_the_script_of_the_page_does_its_work_and_is_on_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECSYS_HOME", str(tmp_path))
    [script] = re.findall(r"```python\n(.*?)```", pages()[COMING], re.DOTALL)
    exec(script, {"__name__": "script"})
    [run] = PipelineTracker(tmp_path / "logs" / "pipeline_metrics.db").get_recent_runs()
    assert (run["status"], run["metadata"]) == ("success", {"version": "1.0", "records": 1000})
    broken = script.replace('return {"records": 1000}', 'raise OSError("no file")')
    with pytest.raises(OSError, match="no file"):
        exec(broken, {"__name__": "script"})
    told = (tmp_path / "logs" / "service" / "alerts.log").read_text(encoding="utf-8")
    assert "CRITICAL | alerting | my_pipeline_failed triggered: no file" in told


TRANSLATED = sorted(page for page in pages() if re.fullmatch(r"docs/.*\.vi\.md", page))


@pytest.mark.parametrize("page", TRANSLATED)
def test_a_page_has_the_same_in_vietnamese_as_in_english(page: str) -> None:
    assert sections(page) == sections(page.replace(".vi.md", ".md"))
