"""Every kind of alert, as its mail reads in either language."""

import json
import re
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pandas as pd
import pytest

from recsys.alerting import AlertManager, Severity, send_pipeline_alert
from recsys.alerting.message import Channel
from recsys.alerting.runs import RunEvent, tell_of_run
from recsys.content.job import alert_on_fallback
from recsys.deployment.gate import Swap
from recsys.deployment.job import ask_for_approval, record_refusal
from recsys.drift.job import alert_on_drift
from recsys.experiments.definitions import Definition
from recsys.experiments.evaluation import evaluate as evaluate_experiments
from recsys.experiments.state import Experiments
from recsys.health.examination import evaluate
from recsys.health.pipelines import report_silence
from recsys.health.reports import watch_reports, write_report
from recsys.health.verdict import Finding, verdict
from recsys.merchandising.rule_warnings import RuleWarning
from recsys.outcomes.alerts import (
    WATCHED,
    Fall,
    Silence,
    tell_of_fall,
    tell_of_losses,
    tell_of_silence,
)
from recsys.outcomes.job import compute_outcomes
from recsys.publishing import DAMAGED
from recsys.quality import report_after_publishing
from recsys.schedule import DataInterval
from recsys.settings import REPOSITORY
from recsys.upkeep.forgetting import tell_of_forgetting
from serving.forgotten import tell_of_register
from serving.housekeeping import (
    BacklogWatch,
    DamageWatch,
    ImplausibleWatch,
    TrialsWatch,
    Waiting,
    tell_of_broken,
)
from serving.rules import tell_of_refusal, tell_of_warnings
from tests.documented import spans, table
from tests.test_docs import may_be

NOW = datetime(2025, 3, 5, 8, tzinfo=UTC)
RUN = {"job": "data_refresh", "run_id": "manual__1", "run_type": "manual"}
DRIFT = {
    "report_date": "20250303",
    "overall_severity": "high",
    "raised": ["volume", "rating"],
    "not_judged": [],
    "recommendations": [
        "40 reviews where 400 were expected (300 to 500): check that orders and reviews still "
        "arrive (data_refresh, the shop's export).",
        "The share of 1-star reviews moved by +5.0 points: look at what customers complain about, "
        "then retrain.",
    ],
    "report": "reports/drift/drift_report_20250303.json",
    "page": "reports/drift/drift_report_20250303.html",
}
NO_MODEL = "e5: there is no folder of this name"
VECTORS = {"model": "catalog-static", "requested_model": "e5", "fallback_reason": NO_MODEL}
SET_ASIDE = {"file": "more.csv", "reason": "more.csv: the file is empty"}
ENGLISH = re.compile(r"\b(the|is|was|were|and|not|no|of|for|has|have|with|there|again|on)\b", re.I)
OF_OTHERS = r"Parquet file size is .*"  # a program that is not ours
QUOTED = ("Lỗi", "Tài liệu")


def tell_of_runs(settings):
    for number, what in enumerate(("task_failed", "run_failed", "run_timed_out")):
        run = RUN | {"run_id": f"manual__{number}"}
        tell_of_run(RunEvent(what, **run, task="ingest", error="there is no column"), settings)
    tell_of_run(RunEvent("deadline", **RUN, state="running", due=NOW), settings)


def tell_of_health(settings):
    manager = AlertManager(settings)
    report_silence(settings, manager, NOW)
    report_silence(settings, manager, NOW + timedelta(days=30))
    for findings in ([Finding("interactions.parquet has 3 rows, not 4")], []):
        for component in ("service", "data", "model", "pipeline"):
            evaluate(settings, {component: verdict(findings)}, component, now=NOW)
    watch_reports(settings, NOW + timedelta(hours=5), since=NOW)
    write_report(settings, {}, NOW, full=True)
    watch_reports(settings, datetime.now(UTC), since=NOW)


def tell_of_service(settings):
    manager = AlertManager(settings)
    for figure in (900.0, 1.0):
        manager.check_alert_conditions({"avg_latency_ms": figure, "requests": figure - 1})
    manager.check_alert_conditions({"avg_latency_ms": 250, "error_rate": 0.1, "fallback_rate": 0.9})
    for what in ("request_log", "served_lists"):
        backlog = SimpleNamespace(problem=(60.0, "disk I/O error"), pending=7, dropped=0)
        watch = BacklogWatch(settings, [Waiting(what, backlog, settings.home / "place")])
        watch.look()
        backlog.problem = None
        watch.look()
    intake = SimpleNamespace(implausible=3)
    ImplausibleWatch(SimpleNamespace(settings=settings, intake=intake)).look()
    tell_of_broken(settings, {"als_2": "als_2: a file is missing"})
    state = settings.home / "artifacts" / "experiments.json"
    state.parent.mkdir()
    state.write_text("{")
    TrialsWatch(SimpleNamespace(settings=settings, engine=None), SimpleNamespace()).look()
    for problem in ("rules.yaml: rules.0.action of 'tet': there is no such action", None):
        tell_of_refusal(settings, "rules", problem)
        tell_of_refusal(settings, "placements", problem)
    doubt = RuleWarning("tet", "expired", "end", "rule tet: end: it ended at 2027-02-06")
    tell_of_warnings(settings, [doubt])
    for problem in ("requests.json: is no register of customers' requests", None):
        tell_of_register(settings, problem)
    (settings.logs / f"service_metrics.db{DAMAGED}20250305").touch()
    DamageWatch(settings, NOW).look()


def tell_of_models(settings):
    for severity in ("high", "low"):
        alert_on_drift(settings, DRIFT | {"overall_severity": severity})
    for reason in (NO_MODEL, None):
        alert_on_fallback(settings, VECTORS | {"fallback_reason": reason})
    plan = {"model_id": "als_2", "serving": "als_1", "reason": "it is the registry's current best"}
    ask_for_approval(settings, plan, "http://airflow/run", "1")
    settings.deployment_history.write_text("[]")
    record_refusal(settings, Swap("als_2", "als_1", ""), "als_2: is archived")


def tell_of_outcomes(settings):
    manager, page = AlertManager(settings), "reports/outcomes/outcomes_20250305.html"
    for proven in (0.2, 0.0):
        for name in WATCHED:
            fall = Fall(NOW.date(), 0.03, 0.05, proven)
            tell_of_fall(manager, name, fall, page)
        tell_of_silence(manager, Silence(int(1000 * proven), 100, NOW), page)
        tell_of_losses(manager, int(1000 * proven), 800, page)
    now = datetime.now(UTC)
    for place in (
        f"served/day={now:%Y-%m-%d}/0-12.parquet",
        "outcomes/day=2020-01-01/groups.parquet",
    ):
        (settings.home / "data" / place).parent.mkdir(parents=True, exist_ok=True)
        (settings.home / "data" / place).write_text("cut o")
    compute_outcomes(settings, DataInterval(now, now))


def tell_of_experiments(settings):
    sides = [{"name": "a", "share": 0.5}, {"name": "b", "share": 0.5}]
    asked = {"question": "Is b better?", "variants": sides, "primary_metric": "clicks_per_list"}
    definition = Definition.model_validate({"name": "blend", **asked, "longest_days": 8})
    state = settings.home / "artifacts" / "experiments.json"
    state.unlink(missing_ok=True)
    experiments = Experiments(settings)
    experiments.start(definition, "lan", now=NOW)
    for unit, days in ((300, 9), (9000, 10)):
        folder = settings.home / "data" / "outcomes" / "day=2025-03-06"
        folder.mkdir(parents=True, exist_ok=True)
        units = pd.DataFrame({"unit": [str(number) for number in range(unit)]})
        units["variant"] = ["a" if number % 3 else "b" for number in range(unit)]
        counted = dict.fromkeys(("lists", "clicks", "carts", "purchases", "value", "fallbacks"), 1)
        units = units.assign(experiment="blend", **counted)
        if unit == 300:
            units["variant"] = ["ab"[number % 2] for number in range(unit)]
        units.to_parquet(folder / "units.parquet", index=False)
        evaluate_experiments(settings, NOW + timedelta(days=days))


def tell_of_the_rest(settings):
    place = "data/quarantine/files/20250305-more.csv"
    report_after_publishing(settings, {"files_set_aside": [SET_ASIDE | {"place": place}]})
    for left in (["data/raw/notes.bin"], []):
        tell_of_forgetting(settings, len(left), left)
    send_pipeline_alert("dong_bo_kho", "failed", "hết chỗ", settings=settings)
    AlertManager(settings).deliver(AlertManager(settings).test_alert(), [Channel.EMAIL])


@pytest.fixture(params=["vi", "en"])
def told(request, settings, configure, mails):
    """The plain texts of the mails about everything that can be told, and the language."""
    configure(language=request.param)
    for folder in (settings.logs, settings.logs / "service"):
        folder.mkdir(parents=True)
    tellers = [tell_of_runs, tell_of_health, tell_of_service, tell_of_models]
    tellers += [tell_of_outcomes, tell_of_experiments]
    for tell in (*tellers, tell_of_the_rest):
        tell(settings)
    return request.param, [
        (str(mail["Subject"]), mail.get_body(("plain",)).get_content().replace("\r\n", "\n"))
        for mail in mails.mails
    ]


def test_every_mail_is_in_its_language_and_names_its_page(told, settings):
    language, mails = told
    names = {row["alert"].name for row in AlertManager(settings).recent(200)}
    documented = [name for row in table("docs/alerting.md", "alert") for name in spans(row[0])]
    assert [entry for entry in documented if not any(may_be(n, entry) for n in names)] == []
    assert len(mails) > len(documented)
    help_label = {"vi": "Tài liệu", "en": "Documentation"}[language]
    for subject, text in mails:
        assert not re.search(r"[{}\[\]]|None", text.partition("\n")[2]), text
        (page,) = re.findall(rf"^{help_label}: (docs/\S+)$", text, re.MULTILINE)
        assert_there_is(page)
        assert not re.search(r"^[a-z_]+: ", text, re.MULTILINE), text  # names of facts
        if language == "vi":
            prose = [line for line in text.splitlines() if line.partition(": ")[0] not in QUOTED]
            said = "\n".join([subject, *prose]).replace(str(settings.home), "")
            said = re.sub(OF_OTHERS, "", said)
            assert not ENGLISH.search(said), text


def assert_there_is(page: str) -> None:
    path, _, section = page.partition("#")
    titles = re.findall(r"^#+ (.*)$", (REPOSITORY / path).read_text("utf-8"), re.MULTILINE)
    anchors = [re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles]
    assert not section or section in anchors, page


def test_a_file_that_was_set_aside_is_told_once(settings, configure, mails):
    configure()
    for place in ("a", "a", "b"):
        report_after_publishing(settings, {"files_set_aside": [SET_ASIDE | {"place": place}]})
    report_after_publishing(settings, {"files_set_aside": [SET_ASIDE]})  # a dry run
    assert len(mails.mails) == 2
    text = mails.mails[0].get_body(("plain",)).get_content()
    assert mails.mails[0]["Subject"].startswith("[WARNING]")
    for said in ("more.csv", "Reason: more.csv: the file is empty", "Now at: a", "drop it again"):
        assert said in text


def test_the_log_says_everything_once(settings, configure):
    configure()
    findings = [Finding("the model is gone", Severity.WARNING)]
    evaluate(settings, {"model": verdict(findings)}, "model", now=NOW)
    log = (settings.logs / "service" / "alerts.log").read_text("utf-8")
    assert log.count("the model is gone") == 1
    assert json.dumps("the model is gone | component=model")[1:-1] in log
