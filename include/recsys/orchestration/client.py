"""What our commands ask of Airflow, over its public REST API."""

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any, NamedTuple
from urllib.parse import quote

import requests

PAGE = 100
TIMEOUT_SECONDS = 30.0
POLL_SECONDS = 1.0
PATIENCE_SECONDS = 60.0
TRIGGER_ATTEMPTS = 3
REFUSALS = frozenset(range(400, 500))
ENDED = frozenset({"success", "failed"})
_segment = partial(quote, safe="")  # a run id in a path, whatever characters it has


class AirflowError(RuntimeError):
    """Airflow does not answer or refuses a request; the text says which and why. `status` is the
    HTTP status of its answer, None without an answer."""

    def __init__(self, text: str, status: int | None = None) -> None:
        super().__init__(text)
        self.status = status


class RunProgress(NamedTuple):
    """How far a run is: its state, the state of every task instance by name, and how many seconds
    each took that has ended."""

    state: str
    tasks: Mapping[str, str]
    seconds: Mapping[str, float]


class AirflowClient:
    """A session with one Airflow API server, as one user. `pages` is where people's browsers find
    its UI, if not at the same address."""

    def __init__(self, url: str, user: str, password: str, pages: str | None = None) -> None:
        self.url = url.rstrip("/")
        self.pages = (pages or url).rstrip("/")
        self._credentials = {"username": user, "password": password}
        self._session = requests.Session()

    def dags(self) -> dict[str, dict[str, Any]]:
        """Every DAG by id, as Airflow describes it."""
        return {dag["dag_id"]: dag for dag in self._pages("/dags", "dags")}

    def import_errors(self) -> list[dict[str, Any]]:
        """The DAG files that Airflow could not load."""
        return list(self._pages("/importErrors", "import_errors"))

    def unpause(self, dag_id: str) -> None:
        """Let the scheduler start runs of the DAG."""
        self._call("PATCH", f"/dags/{dag_id}", json={"is_paused": False})

    def trigger(self, dag_id: str, conf: Mapping[str, Any] | None = None) -> str:
        """Ask for a run now; returns its run id. The run is named here, so that asking again after
        a lost answer cannot start a second."""
        run_id = f"manual__{datetime.now(UTC).isoformat()}"
        body = {"dag_run_id": run_id, "logical_date": None, "conf": dict(conf or {})}
        for attempt in itertools.count(1):
            try:
                self._call("POST", f"/dags/{dag_id}/dagRuns", json=body)
                break
            except AirflowError as error:
                if error.status == requests.codes.conflict and attempt > 1:
                    break
                if error.status == requests.codes.not_found:
                    raise AirflowError(self._why_missing(dag_id), error.status) from error
                if error.status in REFUSALS or attempt == TRIGGER_ATTEMPTS:
                    raise
        return run_id

    def run(self, dag_id: str, run_id: str) -> dict[str, Any]:
        """One run, as Airflow describes it."""
        return self._call("GET", f"/dags/{dag_id}/dagRuns/{_segment(run_id)}")

    def runs_since(self, dag_id: str, since: datetime) -> Iterator[dict[str, Any]]:
        """The runs that were asked for since the moment `since`, oldest first."""
        moment = since.astimezone(UTC).isoformat()
        parameters = {"run_after_gte": moment, "order_by": "run_after"}
        return self._pages(f"/dags/{dag_id}/dagRuns", "dag_runs", parameters)

    def runs_queued_since(self, dag_id: str, moment: datetime) -> list[dict[str, Any]]:
        """The last runs that were put into the queue since `moment`, whatever day they are for."""
        parameters = {"order_by": "-id", "limit": PAGE}
        page = self._call("GET", f"/dags/{dag_id}/dagRuns", params=parameters)
        queued = (run for run in page["dag_runs"] if run["queued_at"])
        return [run for run in queued if datetime.fromisoformat(run["queued_at"]) >= moment]

    def running(self, dag_id: str) -> list[dict[str, Any]]:
        """The runs that have begun and not ended."""
        return list(self._pages(f"/dags/{dag_id}/dagRuns", "dag_runs", {"state": "running"}))

    def create_backfill(self, dag_id: str, first: datetime, last: datetime) -> dict[str, Any]:
        """Ask for a run of every interval between two moments, each after the one before.

        A backfill counts its active runs by itself, whatever the DAG says, and by default runs ten
        at once."""
        span = {"from_date": first.isoformat(), "to_date": last.isoformat()}
        body = {"dag_id": dag_id, **span, "max_active_runs": 1}
        return self._call("POST", "/backfills", json=body)

    def open_backfills(self, dag_id: str) -> list[dict[str, Any]]:
        """The backfills of a DAG that Airflow has not closed; it allows one."""
        backfills = self._pages("/backfills", "backfills", {"dag_id": dag_id})
        return [one for one in backfills if one["completed_at"] is None]

    def is_closed(self, backfill: Mapping[str, Any]) -> bool:
        """Whether Airflow has closed the backfill."""
        return self._call("GET", f"/backfills/{backfill['id']}")["completed_at"] is not None

    def backfill_runs(self, backfill: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The runs of a backfill; days that had a run before have none."""
        created = datetime.fromisoformat(backfill["created_at"])
        first, last = (datetime.fromisoformat(backfill[f"{end}_date"]) for end in ("from", "to"))
        return [
            run
            for run in self.runs_since(backfill["dag_id"], first)
            if run["run_type"] == "backfill"
            and first <= datetime.fromisoformat(run["logical_date"]) <= last
            and datetime.fromisoformat(run["queued_at"] or backfill["created_at"]) >= created
        ]

    def task_instances(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """The task instances of a run, as Airflow describes them."""
        path = f"/dags/{dag_id}/dagRuns/{_segment(run_id)}/taskInstances"
        return list(self._pages(path, "task_instances"))

    def returned_values(self, dag_id: str, run_id: str) -> dict[str, Any]:
        """What the tasks of a run returned, by task id; a list for a mapped task."""
        tasks = f"/dags/{dag_id}/dagRuns/{_segment(run_id)}/taskInstances"
        returned = {"xcom_key": "return_value"}
        values = []
        for entry in self._pages(f"{tasks}/~/xcomEntries", "xcom_entries", returned):
            task, index = entry["task_id"], entry["map_index"]
            where = f"{tasks}/{task}/xcomEntries/return_value"
            answer = self._call("GET", where, params={"map_index": index})
            values.append((task, index, answer["value"]))
        return by_task(values)

    def event_logs(self, dag_id: str, run_id: str, event: str) -> list[dict[str, Any]]:
        """Entries of Airflow's audit log about a run."""
        parameters = {"dag_id": dag_id, "run_id": run_id, "event": event}
        return list(self._pages("/eventLogs", "event_logs", parameters))

    def health(self) -> dict[str, Any]:
        """State and last heartbeat of Airflow's components."""
        return self._call("GET", "/monitor/health")

    def scheduler_state(self) -> str:
        """``healthy`` if Airflow's scheduler gave a sign of life lately."""
        return (self.health().get("scheduler") or {}).get("status") or "not there"

    def follow(
        self, dag_id: str, run_id: str, show: Callable[[RunProgress], None]
    ) -> dict[str, Any]:
        """Wait until a run has ended, telling `show` every change; returns the ended run.

        An API server that does not answer, and a scheduler that is not healthy, are waited for a
        while: they may be restarting. Raises `AirflowError` afterwards."""
        last: RunProgress | None = None
        patience = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                run, tasks = self.run(dag_id, run_id), self.task_instances(dag_id, run_id)
                scheduler = self.scheduler_state()
            except AirflowError as error:
                if error.status in REFUSALS or time.monotonic() > patience:
                    raise
            else:
                if scheduler == "healthy":
                    patience = time.monotonic() + PATIENCE_SECONDS
                states = {_task_name(task): task["state"] or "waiting" for task in tasks}
                took = {_task_name(task): task["duration"] or 0.0 for task in tasks}
                progress = RunProgress(run["state"], states, took)
                if progress != last:
                    show(progress)
                    last = progress
                if run["state"] in ENDED:
                    return run
                if time.monotonic() > patience:
                    raise AirflowError(f"{dag_id} {run_id} waits: the scheduler is {scheduler}")
            time.sleep(POLL_SECONDS)

    def run_url(self, dag_id: str, run_id: str) -> str:
        """The page of a run in the web UI."""
        return f"{self.pages}/dags/{dag_id}/runs/{_segment(run_id)}"

    def _pages(
        self, path: str, key: str, parameters: Mapping[str, Any] | None = None
    ) -> Iterator[dict[str, Any]]:
        for offset in itertools.count(0, PAGE):
            limits = {**(parameters or {}), "limit": PAGE, "offset": offset}
            page = self._call("GET", path, params=limits)
            yield from page[key]
            if offset + PAGE >= page["total_entries"]:
                return

    def _why_missing(self, dag_id: str) -> str:
        errors = (one for one in self.import_errors() if one["filename"] == f"{dag_id}.py")
        reason = next((one["stack_trace"].strip().splitlines()[-1] for one in errors), None)
        why = reason or "it may not have read the file yet; `make status` tells"
        return f"Airflow has no job {dag_id}: {why}"

    def _call(self, method: str, path: str, **arguments: Any) -> dict[str, Any]:
        ask = partial(self._session.request, method, f"{self.url}/api/v2{path}", **arguments)
        try:
            if "Authorization" not in self._session.headers:
                self._log_in()
            response = ask(timeout=TIMEOUT_SECONDS)
            if response.status_code == requests.codes.unauthorized:
                self._log_in()
                response = ask(timeout=TIMEOUT_SECONDS)
        except requests.RequestException as error:
            silent = f"Airflow does not answer at {self.url} ({type(error).__name__})"
            raise AirflowError(f"{silent}; is the stack up? `make status` tells") from error
        if not response.ok:
            status = response.status_code
            raise AirflowError(f"{method} {path}: {status} {_reason(response)}", status)
        return dict(response.json()) if response.content else {}

    def _log_in(self) -> None:
        url, user = f"{self.url}/auth/token", self._credentials["username"]
        response = self._session.post(url, json=self._credentials, timeout=TIMEOUT_SECONDS)
        if not response.ok:
            raise AirflowError(f"Airflow refuses user {user!r}: {_reason(response)}")
        self._session.headers["Authorization"] = f"Bearer {response.json()['access_token']}"


def by_task(values: Iterable[tuple[str, int, Any]]) -> dict[str, Any]:
    """Results of tasks (id, map index, value) by task id; a list for a mapped task."""
    found: dict[str, Any] = {}
    for task, index, value in sorted(values, key=lambda one: one[:2]):
        if index < 0:
            found[task] = value
        else:
            found.setdefault(task, []).append(value)
    return found


def _task_name(task: Mapping[str, Any]) -> str:
    index = task.get("map_index", -1)
    if index < 0:
        return str(task["task_id"])
    return f"{task['task_id']}[{task.get('rendered_map_index') or index}]"


def _reason(response: requests.Response) -> str:
    try:
        return str(response.json().get("detail", response.text))
    except ValueError:
        return response.text[:200]
