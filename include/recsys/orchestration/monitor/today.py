"""What needs a person today, and what to do about it, as sentences."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple
from urllib.parse import quote

from recsys.orchestration.monitor.overview import Health, JobRow, Models, Overview, summary_of
from recsys.orchestration.monitor.scheduler import Scheduler

BAD: Final = "bad"
WARN: Final = "warn"

_CHECKS: Final = ("service", "data", "model", "pipeline")
_DRIFT: Final = "drift_detection"


class Task(NamedTuple):
    """Something that a person should do.

    `kind` names its texts: ``task.KIND`` says what is the case, ``.means`` what that means for the
    shop, ``.do`` what to do; `values` fill their blanks in. `quoted` is what a program said, in its
    own words, `link` a path below the monitor that leads further, `airflow` one below Airflow, and
    `release` a held model that can be released on the spot."""

    severity: str
    kind: str
    values: Mapping[str, object] = {}
    quoted: str | None = None
    link: str | None = None
    airflow: str | None = None
    release: str | None = None


def tasks(overview: Overview) -> list[Task]:
    """What needs a person, the worst first."""
    found = [
        *_unreadable(overview),
        *_of_health(overview),
        *(task for job in overview.jobs.content or () for task in _of_job(job)),
        *_of_models(overview.models.content),
        *_of_questions(overview.scheduler.content),
        *_of_deployments(overview.deployments.content or [], overview.models.content),
        *_of_rules(overview),
        *_of_requests(overview),
    ]
    known = {(task.kind, task.values.get("job")) for task in found}
    told = [task for task in found if not _is_told_better(task, known)]
    return sorted(told, key=lambda task: task.severity != BAD)


def _is_told_better(task: Task, known: set[tuple[str, object]]) -> bool:
    """Whether what is looked at now says the same as the hourly report, and more of it."""
    if task.kind == "service_ill":
        return ("service_silent", None) in known
    return task.kind == "job_silent" and ("job_failed", task.values.get("job")) in known


def newest_review(health: Health | None) -> datetime | None:
    """When the newest review or purchase of the published data was."""
    newest = (health.checks.get("data") or {}).get("newest_event") if health else None
    return datetime.fromisoformat(newest) if isinstance(newest, str) else None


def _unreadable(overview: Overview) -> Iterator[Task]:
    for name in (
        "scheduler",
        "health",
        "jobs",
        "models",
        "deployments",
        "rules",
        "requests",
        "simulated",
    ):
        if problem := getattr(overview, name).problem:
            yield Task(BAD, f"unreadable_{name}", quoted=problem)


def _of_health(overview: Overview) -> Iterator[Task]:
    health = overview.health.content
    if health is None:
        if overview.health.problem is None:
            yield Task(WARN, "no_health")
        return
    if health.overdue:
        yield Task(BAD, "health_overdue")
    for name in _CHECKS:
        check: Mapping[str, Any] = health.checks.get(name) or {"healthy": True}
        if not check.get("healthy"):
            severity = WARN if check.get("severity") == "warning" else BAD
            yield Task(severity, f"{name}_ill", quoted=str(check.get("error") or ""))
    for job in health.overdue_jobs:
        yield Task(BAD, "job_silent", {"job": job})
    if health.broken_rules:
        yield Task(WARN, "rules_broken", quoted=", ".join(health.broken_rules))


def _of_job(job: JobRow) -> Iterator[Task]:
    if job.problem:
        yield Task(BAD, "job_misconfigured", {"job": job.name}, job.problem)
    if job.failed and job.last_run is not None:
        run_id = job.last_run["metadata"].get("airflow_run_id")
        link = None if run_id is None else f"runs/{job.name}/{quote(str(run_id), safe='')}"
        yield Task(BAD, "job_failed", {"job": job.name}, job.last_run["error_message"], link)
    if job.paused and job.timing is not None and job.timing.enabled:
        yield Task(WARN, "job_paused", {"job": job.name})
    if job.name == _DRIFT and _is_unjudged(job):
        yield Task(WARN, "week_not_judged", link="reports")


def _is_unjudged(job: JobRow) -> bool:
    """Whether the last week that drift looked at had too little data for any of its checks."""
    found = summary_of(job.last_run).get("detect")
    return isinstance(found, Mapping) and found.get("overall_severity") == "not judged"


def _of_models(models: Models | None) -> Iterator[Task]:
    if models is None:
        return
    if models.serving_problem:
        yield Task(BAD, "service_silent", quoted=models.serving_problem)
    elif models.selection is None:
        yield Task(WARN, "no_model")
    elif models.serving is None:
        yield Task(BAD, "serves_nothing", {"best": models.selection.model_id})
    elif models.serving != models.selection.model_id:
        names = {"serving": models.serving, "best": models.selection.model_id}
        yield Task(WARN, "serves_another", names, link="models")


def _of_questions(scheduler: Scheduler | None) -> Iterator[Task]:
    for one in scheduler.questions if scheduler else ():
        path = "/".join(quote(part, safe="") for part in (one.run_id, "tasks", one.task_id))
        place = f"dags/{quote(one.job, safe='')}/runs/{path}/required_actions"
        asked = {"job": one.job, "since": one.asked_at}
        form = f"{place}?map_index={one.map_index}"
        yield Task(WARN, "question_waits", asked, one.subject, airflow=form)


def _of_deployments(deployments: list[dict[str, Any]], models: Models | None) -> Iterator[Task]:
    last = next(iter(deployments), None)
    if last is None or last.get("status") not in ("failed", "rolled_back"):
        return
    model = last["model_id"]
    known = {"model": model}, last.get("error"), f"models/{quote(str(model), safe='')}"
    if last["status"] == "failed":
        yield Task(BAD, "deployment_failed", *known)
        return
    status = models.statuses.get(model) if models else None
    if status in (None, "held"):  # once a person has released it there is nothing left to do
        release = model if status == "held" else None
        yield Task(BAD, "deployment_rolled_back", *known, release=release)


def _of_rules(overview: Overview) -> Iterator[Task]:
    rules = overview.rules.content
    if rules is None:
        return
    if rules.problem:
        yield Task(BAD, "rules_refused", quoted=rules.problem, link="rules")
    if rules.warnings:
        yield Task(WARN, "rules_warned", {"names": ", ".join(rules.warnings)}, link="rules")


def _of_requests(overview: Overview) -> Iterator[Task]:
    requests = overview.requests.content
    if requests is None:
        return
    if requests.problem:
        yield Task(BAD, "register_damaged", quoted=requests.problem, link="customers")
    if requests.late:
        yield Task(BAD, "requests_late", {"number": requests.late}, link="customers")
