"""What happens beside the requests: a newer catalogue, old events, the watch on the watcher.
Alerting is imported by what tells something: a worker that has nothing to tell does without."""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from recsys.backlog import Backlog
from recsys.data.staging import hand_in_segments
from recsys.errors import InputError
from recsys.experiments.state import Experiments
from recsys.publishing import DAMAGED
from recsys.served_lists import SERVED_KEY, hand_in_lists
from recsys.settings import Settings
from recsys.storage import open_store
from serving.engine import Engine
from serving.forgotten import FORGOTTEN_SECONDS, tell_of_register
from serving.impressions import IMPRESSIONS_SECONDS
from serving.rules import RULES_SECONDS, PlacementsWatch, RulesWatch
from serving.service import Service
from serving.trials import read_trials

logger = logging.getLogger(__name__)

_WATCH_SECONDS = 300.0
_HAND_IN_SECONDS = 60.0
_PRUNE_SECONDS = 3600.0
_LOG_WATCH_SECONDS = 5.0
_TRIALS_SECONDS = 5.0
_BROKEN_SECONDS = 300.0  # a model that could not be loaded is tried again
_LOG_PATIENCE_SECONDS = 10.0  # a database that somebody locks for a moment is no news
IMPLAUSIBLE_ALERT = "implausible_interactions"
DAMAGE_ALERT = "file_set_aside"
BROKEN_ALERT = "experiment_model_failing"
EXPERIMENTS_ALERT = "experiments_damaged"
_STARTING_SECONDS = 300.0
_EVERYBODY = ("log", "email", "slack")


Duties = list[tuple[float, Callable[[], object]]]
"""What is done, and every so many seconds."""


class Recurring(threading.Thread):
    """A thread with a few recurring `duties`; a duty that fails is logged and tried again."""

    def __init__(self, name: str, duties: Duties) -> None:
        super().__init__(name=name, daemon=True)
        self._duties = duties
        self._ending = threading.Event()

    def stop(self) -> None:
        self._ending.set()
        if self.is_alive():
            self.join(timeout=10)

    def run(self) -> None:
        due = [time.monotonic() + every for every, _ in self._duties]
        due[0] = time.monotonic()  # a refresh may have published while this worker was loading
        while not self._ending.wait(max(0.0, min(due) - time.monotonic())):
            for number, (every, duty) in enumerate(self._duties):
                if due[number] > time.monotonic():
                    continue
                try:
                    duty()
                except Exception:
                    logger.exception("A recurring duty failed")
                due[number] = time.monotonic() + every


class Housekeeping:
    """What a worker does beside the requests, in two threads: who is forgotten is followed beside
    all that may take a while."""

    def __init__(self, service: Service) -> None:
        self._threads = (
            Recurring("forgotten", [(FORGOTTEN_SECONDS, service.forgotten.look)]),
            Recurring("housekeeping", self._duties(service)),
        )

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        for thread in self._threads:
            thread.stop()

    @staticmethod
    def _duties(service: Service) -> Duties:
        settings, since = service.settings, datetime.now(UTC)
        duties: Duties = [
            (service.config.catalogue_check_seconds, lambda: _follow_catalogue(service.engine)),
            (RULES_SECONDS, service.rules.look),
            (RULES_SECONDS, service.places.look),
            (IMPRESSIONS_SECONDS, service.impressions.look),
            (RULES_SECONDS, service.engine.follow_rules),
            (_LOG_WATCH_SECONDS, ImplausibleWatch(service).look),
        ]
        if service.slot:
            duties.append((_PRUNE_SECONDS, service.live.forget))
        else:  # one process watches, and prunes, for all
            duties.append((_TRIALS_SECONDS, TrialsWatch(service, asyncio.get_running_loop()).look))
            if open_store(settings).shared:
                duties.append((_HAND_IN_SECONDS, lambda: hand_in_segments(settings)))
            duties += [
                (RULES_SECONDS, RulesWatch(settings, service.rules, service.rule_warnings).look),
                (RULES_SECONDS, PlacementsWatch(settings, service.places).look),
                (_HAND_IN_SECONDS, lambda: hand_in_lists(settings)),
                (_WATCH_SECONDS, lambda: _watch_health_reports(settings, since)),
                (_PRUNE_SECONDS, service.live.prune),
                (_LOG_WATCH_SECONDS, BacklogWatch(settings, _backlogs(service)).look),
                (_LOG_WATCH_SECONDS, DamageWatch(settings, since).look),
                (_LOG_WATCH_SECONDS, RegisterWatch(service).look),
            ]
        return duties


class Waiting(NamedTuple):
    """What waits in memory while it cannot be written to `place`; alerts are named after it."""

    what: str
    backlog: Backlog[Any]
    place: Path


@dataclass
class BacklogWatch:
    """Tells, once, that what waits in one of the backlogs cannot be written, and that all is well
    again: they are on one disk. It remembers by itself what it told: on a full disk the alerts' own
    memory does not work."""

    settings: Settings
    backlogs: Sequence[Waiting]
    told: str = ""

    def look(self) -> None:
        from recsys.alerting import AlertManager

        failing = [(one, problem) for one in self.backlogs if (problem := one.backlog.problem)]
        if not failing and self.told:
            # Not `resolve`: nothing may be on record of what was told when the disk was full.
            AlertManager(self.settings).send_alert(
                f"{self.told}_failing_no_more", "all is written down again", "info", _EVERYBODY
            )
            self.told = ""
        long = [(one, error) for one, (age, error) in failing if age >= _LOG_PATIENCE_SECONDS]
        if self.told or not long:
            return
        (one, error), *_ = long
        self.told = one.what
        waiting = {"pending": one.backlog.pending, "dropped": one.backlog.dropped}
        text = "what cannot be written waits in memory"
        facts = {"file": one.place, "error": error, **waiting}
        AlertManager(self.settings).send_alert(
            f"{one.what}_failing", text, "critical", context=facts
        )


def _backlogs(service: Service) -> list[Waiting]:
    settings, lists = service.settings, service.served.log
    found = [Waiting("request_log", service.requests, settings.service_db)]
    if lists is not None:
        found.append(Waiting("served_lists", lists, settings.home / SERVED_KEY))
    return found


@dataclass
class RegisterWatch:
    """Tells that the register of customers' requests cannot be read, and that it can be again."""

    service: Service
    told: str | None = None

    def look(self) -> None:
        problem = self.service.forgotten.problem
        if (problem is None) != (self.told is None):
            tell_of_register(self.service.settings, problem)
            self.told = problem


@dataclass
class ImplausibleWatch:
    """Tells that interactions went to quarantine because there were more than is plausible."""

    service: Service
    told: int = 0

    def look(self) -> None:
        from recsys.alerting import AlertManager
        from recsys.alerting.manager import HELD_BACK

        count = self.service.intake.implausible
        if count == self.told:
            return
        settings = self.service.settings
        facts = {"count": count - self.told, "place": settings.quarantine / "interactions"}
        text = "more interactions of one customer, or of one product, than is plausible in a day"
        sent = AlertManager(settings).send_alert(IMPLAUSIBLE_ALERT, text, context=facts)
        if set(sent.values()) != {HELD_BACK}:  # else they are in the next one
            self.told = count


@dataclass
class TrialsWatch:
    """Follows the state of the experiments for all workers, and tells what is wrong with it."""

    service: Service
    loop: asyncio.AbstractEventLoop
    tried: float = 0.0
    told: str | None = None
    away: bool = False

    def look(self) -> None:
        settings, engine = self.service.settings, self.service.engine
        try:
            self._tell_of_damage(Experiments(settings).problem())
            trials = read_trials(settings)
        except InputError:
            return  # told above; what runs goes on
        except OSError as error:
            if not self.away:
                logger.warning("The experiments cannot be looked at | error=%s", error)
            self.away = True
            return
        self.away = False
        again = engine.in_trial.broken and time.monotonic() - self.tried > _BROKEN_SECONDS
        if trials == engine.in_trial.trials and not again:
            return
        self.tried = time.monotonic()
        following = self.service.coordinator.follow()
        followed = asyncio.run_coroutine_threadsafe(following, self.loop).result()
        tell_of_broken(settings, followed.broken)

    def _tell_of_damage(self, problem: str | None) -> None:
        from recsys.alerting import AlertManager

        if problem is not None and self.told is None:
            AlertManager(self.service.settings).send_alert(
                EXPERIMENTS_ALERT,
                "the experiments cannot be read: those that run go on",
                context={"error": problem},
            )
        self.told = problem


def tell_of_broken(settings: Settings, broken: Mapping[str, str]) -> None:
    """Tell of models of experiments that cannot be loaded, each once."""
    from recsys.alerting import Alert, AlertManager, Severity

    for model_id, problem in broken.items():
        alert = Alert(
            BROKEN_ALERT,
            "a side of an experiment gets what is deployed, because its model cannot be loaded",
            Severity.WARNING,
            facts={"model_id": model_id, "error": problem},
            key=f"{BROKEN_ALERT}:{model_id}",
            until_resolved=True,
        )
        AlertManager(settings).deliver(alert)


@dataclass
class DamageWatch:
    """Tells of files that were no databases or logs of ours and were set aside, by any process."""

    settings: Settings
    since: datetime
    told: set[str] = field(default_factory=set)

    def look(self) -> None:
        from recsys.alerting import Alert, AlertManager, Severity

        found = []
        logs = self.settings.logs
        for folder in (logs, logs / "service", self.settings.home / "data"):
            for aside in folder.glob(f"*{DAMAGED}*"):
                if aside.name in self.told or aside.name.endswith(("-wal", "-shm")):
                    continue
                self.told.add(aside.name)
                # Setting it aside changed its name, and with that the time of its last change.
                if aside.stat().st_ctime >= self.since.timestamp() - _STARTING_SECONDS:
                    found.append(str(aside))
        if found:
            names = ", ".join(sorted(found))
            alert = Alert(
                DAMAGE_ALERT,
                "what lay in place of a database or log of ours was set aside",
                Severity.WARNING,
                facts={"files": names},
                key=f"{DAMAGE_ALERT}/{names}",  # what is damaged next is another matter
                until_resolved=True,
            )
            AlertManager(self.settings).deliver(alert)


def _follow_catalogue(engine: Engine) -> None:
    """Take over what is newer, and once more what came meanwhile: making lists takes as long as
    embedding the texts of a new version, which would wait for the next look, as would a model that
    came in meanwhile."""
    if engine.follow_catalogue():
        engine.follow_catalogue()


def _watch_health_reports(settings: Settings, since: datetime) -> bool:
    """The hourly health check cannot say itself that it has stopped reporting."""
    from recsys.health import watch_reports

    return watch_reports(settings, datetime.now(UTC), since)
