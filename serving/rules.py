"""The rules in service: every worker follows the file, worker 0 tells of it for all."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from recsys.config import ConfigError
from recsys.merchandising.audit import Told, read_standing, record, write_standing
from recsys.merchandising.rule_warnings import RuleWarning
from recsys.merchandising.rules import RuleSet, file_digest, read_rules
from recsys.settings import Settings

logger = logging.getLogger(__name__)

RULES_SECONDS = 5.0
"""A change is in service after two looks at the file."""

REFUSED_ALERT = "rules_refused"
WARNING_ALERT = "rules_warning"
_WARNINGS_SECONDS = 600.0  # time passes, and so does the catalogue
_DAY_SECONDS = 86_400.0


class FollowedRules:
    """What ``rules.yaml`` says, and of a bad file what it said last. Reading `current` needs no
    lock: it is one reference, replaced by one assignment."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._known = self._seen = _digest(settings)
        self.problem: str | None = None
        """Why the file does not count as it is; None when it does."""
        self.current: RuleSet
        try:
            self.current = read_rules(settings)
        except ConfigError as error:
            self.problem, self.current = str(error), read_standing(settings).rules
            logger.error("Rules refused, those of before go on | reason=%s", error)

    def look(self) -> bool:
        """Read the file again if it is another one; whether other rules are in service now. A new
        content counts when two looks have seen it: an editor may be half through with the first."""
        digest = _digest(self._settings)
        settled, self._seen = digest == self._seen, digest
        if not settled or digest == self._known:
            return False
        before, self._known = self.current, digest
        try:
            self.current, self.problem = read_rules(self._settings), None
        except ConfigError as error:
            self.problem = str(error)
            logger.error("Rules refused, those of before go on | reason=%s", error)
            return False
        count, sha256 = len(self.current.rules), self.current.sha256
        logger.info("Rules in service | rules=%d, sha256=%s", count, sha256)
        return self.current != before


def _digest(settings: Settings) -> str:
    """Of what the file holds; of one that cannot be read, of why."""
    try:
        return file_digest(settings)
    except OSError as error:
        return f"{type(error).__name__}: {error.strerror}"


class RulesWatch:
    """Remembers the rules in service, writes their changes down, and tells of a bad file and, once
    a day at most, of rules that will not get what they ask for."""

    def __init__(
        self, settings: Settings, followed: FollowedRules, warnings: Callable[[], list[RuleWarning]]
    ) -> None:
        self._settings, self._followed, self._warnings = settings, followed, warnings
        self._standing = self._written = read_standing(settings)
        self._warned_of, self._warn_at, self._failing = RuleSet(), 0.0, False

    def look(self) -> None:
        before, rules, problem = self._standing, self._followed.current, self._followed.problem
        if not (rules.rules or before.rules.rules or problem or before.problem):
            return  # a shop without rules has no note of them
        now = datetime.now(UTC)
        self._standing = record(self._settings, before, rules, now)
        if problem != before.problem:
            tell_of_problem(self._settings, problem)
            self._standing = replace(self._standing, problem=problem)
        if rules != self._warned_of or time.monotonic() >= self._warn_at:
            self._warned_of, self._warn_at = rules, time.monotonic() + _WARNINGS_SECONDS
            told = self._tell_of_warnings(self._standing.told, now.timestamp())
            self._standing = replace(self._standing, told=told)
        if self._standing != self._written:
            self._write()

    def _write(self) -> None:
        """Into the note; on a full disk at the next look, and the log says so once."""
        try:
            write_standing(self._settings, self._standing)
        except OSError as error:
            if not self._failing:
                logger.error("The rules in service cannot be written down | error=%s", error)
            self._failing = True
            return
        self._written, self._failing = self._standing, False

    def _tell_of_warnings(self, before: Told, now: float) -> Told:
        warnings = self._warnings()
        standing = frozenset(one.identity for one in warnings)
        if standing <= before.warnings or now - before.at < _DAY_SECONDS:
            # What is over is forgotten: when it comes again it is told again.
            return before._replace(warnings=before.warnings & standing)
        new = [one for one in warnings if one.identity not in before.warnings]
        tell_of_warnings(self._settings, new)
        return Told(standing, now)


def tell_of_warnings(settings: Settings, warnings: Sequence[RuleWarning]) -> None:
    """Tell of `warnings` that nobody was told of."""
    from recsys.alerting import Alert, AlertManager, Severity

    sentences = "; ".join(one.sentence for one in warnings)
    alert = Alert(
        WARNING_ALERT,
        "rules will not get what they ask for",
        Severity.WARNING,
        facts={"reason": sentences},
        key=f"{WARNING_ALERT}/{'/'.join(one.identity for one in warnings)}",
    )
    AlertManager(settings).deliver(alert)


def tell_of_problem(settings: Settings, problem: str | None) -> None:
    """Tell what is wrong with the file, or that nothing is any more."""
    from recsys.alerting import Alert, AlertManager, Severity

    if problem is None:
        AlertManager(settings).resolve(REFUSED_ALERT, "the rules are as the file says again")
        return
    alert = Alert(
        REFUSED_ALERT,
        "the rules in the file are refused: those of before go on",
        Severity.WARNING,
        facts={"error": problem},
        until_resolved=True,
    )
    AlertManager(settings).deliver(alert)
