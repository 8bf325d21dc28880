"""A run as a story: its steps in their order, and what each found, as sentences. What a step
returned that is not of the form known here is not told; it is still there as JSON."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

from recsys.deployment.history import read_history
from recsys.errors import InputError
from recsys.orchestration.monitor.language import Language
from recsys.registry import Registry
from recsys.settings import Settings

Result = Mapping[str, Any]

_STEPS: Final[Mapping[str, Sequence[str]]] = {
    "data_refresh": ("ingest", "score_comments", "publish", "report_quality", "find_new_texts"),
    "bert_embeddings": ("embed", "alert"),
    "drift_detection": ("detect", "alert", "decide_on_training", "trigger_training", "summarise"),
    "model_training": ("plan", "train", "select_best"),
    "model_deployment": ("check_gate", "ask_if_needed", "approve", "deploy"),
    "health_check": (
        *("reconcile_runs", "check_service", "check_data", "check_model", "check_pipeline"),
        "evaluate",
    ),
    "outcomes": ("compute", "report", "is_current", "alert", "judge_experiments"),
    "maintenance": ("clean_models", "clean_data", "clean_records", "clean_airflow"),
    "forget_customers": ("forget",),
}


class Training(NamedTuple):
    """A trained model as a row. `outcome` is ``chosen``, ``passed`` or ``refused``, `why` what the
    training or the selection said of it."""

    family: str
    model_id: str
    recall: tuple[float | None, float | None, float | None]  # value, low, high
    ndcg: tuple[float | None, float | None, float | None]
    baseline: float | None
    seconds: float | None
    outcome: str
    why: str | None


class Step(NamedTuple):
    """A step: its task, what it found in sentences, what programs said in their own words, checks
    that it made by name, why it failed (None if it did not), and what it returned."""

    task: str
    said: list[str]
    quoted: list[str]
    checks: dict[str, bool]
    error: str | None
    result: Any


class Story(NamedTuple):
    """The steps in their order, and the models that the run trained."""

    steps: list[Step]
    trainings: list[Training]

    @property
    def failed(self) -> list[Step]:
        return [step for step in self.steps if step.error is not None]


def tell(settings: Settings, run: Result, summary: Result, language: Language) -> Story:
    """The story of a run of the tracker, whose tasks returned `summary`."""
    job, about = str(run["pipeline_name"]), run["metadata"]
    errors = {**(about.get("task_errors") or {})}
    if task := about.get("failing_task"):
        errors.setdefault(task, run["error_message"])
    if run["status"] != "failed":  # an earlier try's
        errors = {}
    known = [*_STEPS.get(job, ()), *summary, *errors]
    steps = []
    for task in dict.fromkeys(known):
        if task not in summary and task not in errors:
            continue
        found = summary.get(task)
        if found is None and job == "model_deployment" and task == "deploy":
            found = _written_down(settings, run)
        steps.append(_step(task, found, errors.get(task), language))
    return Story(steps, _trainings(summary, _metrics(settings)))


def _step(task: str, result: Any, error: str | None, language: Language) -> Step:
    said, quoted, checks = list[str](), list[str](), dict[str, bool]()
    if (form := _TOLD.get(task)) is not None and isinstance(result, Mapping):
        try:
            for one in form(result, language):
                if isinstance(one, Quoted):
                    quoted.append(str(one))
                else:
                    said.append(one)
            checks = {str(name): bool(one) for name, one in _checks(result).items()}
        except (KeyError, TypeError, ValueError, AttributeError):
            said, quoted, checks = [], [], {}
    return Step(task, said, quoted, checks, error, result)


class Quoted(str):
    """What a program said."""

    __slots__ = ()


Told = Iterator[str]


def _ingest(result: Result, language: Language) -> Told:
    rows = result["rows"]
    counts = {name: language.number(rows[name]) for name in ("read", "valid", "quarantined")}
    yield language.say("told.rows", source=result["source"], **counts)
    yield language.say("told.new", number=language.number(result["changes"]["new"]))
    if files := result.get("files_read"):
        yield language.say("told.files", number=language.number(len(files)))
        yield Quoted(", ".join(files[:10]))
    yield language.say(f"told.strategy_{result['strategy']}")
    if result["dry_run"]:
        yield language.say("told.dry_run")
    yield Quoted(result["reason"])
    for reason, number in (result.get("quarantined_by_reason") or {}).items():
        yield Quoted(f"{language.number(number)}: {reason}")
    for one in result.get("files_set_aside") or ():
        yield Quoted(f"{one['file']}: {one['reason']}")


def _publish(result: Result, language: Language) -> Told:
    if not result.get("new_version"):
        yield language.say("told.no_version")
        return
    rows = language.number(result["rows"]["accepted"])
    yield language.say("told.version", version=result["version_id"], rows=rows)
    yield language.say("told.published" if result["published"] else "told.not_published")


def _embed(result: Result, language: Language) -> Told:
    counts = {name: language.number(result[name]) for name in ("encoded", "products")}
    yield language.say("told.encoded" if result["new_set"] else "told.nothing_encoded", **counts)
    if result.get("fallback_reason"):
        yield language.say("told.other_encoder")
        yield Quoted(result["fallback_reason"])


def _detect(result: Result, language: Language) -> Told:
    severity = str(result["overall_severity"]).replace(" ", "_")
    yield language.say(f"told.week_{severity}")
    for key, text in (("raised", "told.raised"), ("not_judged", "told.not_judged")):
        if names := [language.known("check", one) for one in result.get(key) or ()]:
            yield language.say(text, names=", ".join(names))
    events = {name: language.number(result[name]) for name in ("events", "rows")}
    yield language.say("told.events", **events)


def _select(result: Result, language: Language) -> Told:
    kind = "nothing" if result["model_id"] is None else "chosen" if result["changed"] else "stays"
    yield language.say(f"told.{kind}", model=result["model_id"])
    yield Quoted(result["reason"])


def _gate(result: Result, language: Language) -> Told:
    same = result["model_id"] == result["serving"]
    known = {"model": result["model_id"], "before": result["serving"] or "–"}
    yield language.say("told.swap_same" if same else "told.swap", **known)
    if result.get("rollback"):
        yield language.say("told.rollback")
    yield Quoted(result["reason"])


def _deploy(result: Result, language: Language) -> Told:
    known = {"model": result.get("model_id"), "before": result.get("previous_model_id") or "–"}
    yield language.say(f"told.deployment_{result['status']}", **known)
    if result.get("error"):
        yield Quoted(result["error"])


def _checks(result: Result) -> Result:
    found = result.get("verification")
    return found if isinstance(found, Mapping) else {}


def _component(result: Result, language: Language) -> Told:
    yield language.say("told.healthy" if result["healthy"] else "told.ill")
    if result.get("error"):
        yield Quoted(result["error"])


def _evaluate(result: Result, language: Language) -> Told:
    yield language.say(f"told.status_{result['status']}")
    for key, text in (("alerts", "told.rules"), ("overdue_jobs", "told.overdue")):
        if names := result.get(key):
            known = [language.known("job", one) for one in names]
            yield language.say(text, names=", ".join(known))


def _compute(result: Result, language: Language) -> Told:
    yield language.say("told.days", number=language.number(len(result["made"])))
    if result.get("lost"):
        yield language.say("told.lost", number=language.number(result["lost"]))


def _outcomes(result: Result, language: Language) -> Told:
    names = ("days", "lists", "clicks", "purchases")
    yield language.say("told.outcomes", **{name: language.number(result[name]) for name in names})


def _clean(result: Result, language: Language) -> Told:
    areas = [result, *(one for one in result.values() if isinstance(one, Mapping))]
    freed = sum(one.get("freed_bytes") or 0 for one in areas)
    count = sum(one.get("count") or 0 for one in areas)
    size = language.number(freed / 2**20, 1)
    yield language.say("told.found_old", number=language.number(count), size=size)


def _summarise_cleaning(result: Result, language: Language) -> Told:
    yield language.say("told.only_looked" if result["dry_run"] else "told.removed")


def _forget(result: Result, language: Language) -> Told:
    names = ("requests", "forgotten", "open")
    yield language.say("told.forgotten", **{name: language.number(result[name]) for name in names})


_TOLD: Final[Mapping[str, Callable[[Result, Language], Told]]] = {
    "ingest": _ingest,
    "publish": _publish,
    "embed": _embed,
    "detect": _detect,
    "select_best": _select,
    "check_gate": _gate,
    "deploy": _deploy,
    **dict.fromkeys(("check_service", "check_data", "check_model", "check_pipeline"), _component),
    "evaluate": _evaluate,
    "compute": _compute,
    "report": _outcomes,
    **dict.fromkeys(_STEPS["maintenance"], _clean),
    "summarise": _summarise_cleaning,
    "forget": _forget,
}


def _written_down(settings: Settings, run: Result) -> Result | None:
    """What the history has of a deployment that failed, whose task returned nothing."""
    try:
        history = read_history(settings)
    except InputError:  # the page of today says so
        return None
    begin, end = (datetime.fromisoformat(run[name]) for name in ("started_at", "finished_at"))
    during = (one for one in history if begin <= datetime.fromisoformat(one["timestamp"]) <= end)
    return next(during, None)


def _metrics(settings: Settings) -> Mapping[str, Result]:
    """What the registry has measured of each model; a run's summary has no intervals."""
    try:
        return {one.model_id: one.metrics for one in Registry(settings).list()}
    except InputError:  # the page of models says so
        return {}


def _trainings(summary: Result, metrics: Mapping[str, Result]) -> list[Training]:
    selected = summary.get("select_best")
    choice: Result = selected if isinstance(selected, Mapping) else {}
    trained = summary.get("train")
    found = trained if isinstance(trained, list) else []
    known = [one for one in found if isinstance(one, Mapping)]
    measured = ({**metrics.get(str(one.get("model_id")), {}), **one} for one in known)
    rows = [_training(one, choice) for one in measured]
    return sorted(rows, key=lambda row: -(row.recall[0] or 0.0))


def _training(one: Result, choice: Result) -> Training:
    model_id = str(one.get("model_id") or "–")
    refused = (choice.get("refused") or {}).get(model_id)
    if not one.get("passes"):
        outcome, why = "refused", refused or one.get("reason")
    elif model_id == choice.get("model_id"):
        outcome, why = "chosen", choice.get("reason")
    else:
        outcome, why = ("refused", refused) if refused else ("passed", None)
    return Training(
        family=model_id.rsplit("_", 2)[0],
        model_id=model_id,
        recall=_interval(one, "recall_at_10"),
        ndcg=_interval(one, "ndcg_at_10"),
        baseline=_number(one.get("baseline_recall_at_10")),
        seconds=_number(one.get("duration_seconds")),
        outcome=outcome,
        why=None if why is None else str(why),
    )


def _interval(one: Result, name: str) -> tuple[float | None, float | None, float | None]:
    value, low, high = (_number(one.get(name + end)) for end in ("", "_low", "_high"))
    return value, low, high


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None
