"""The rules in service: every worker follows the file, worker 0 tells of it for all."""

import hashlib
import logging
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from recsys.config import ConfigError
from recsys.merchandising.audit import read_standing, record, write_standing
from recsys.merchandising.rules import RulesConfig, RuleSet, read_rules
from recsys.settings import Settings

logger = logging.getLogger(__name__)

RULES_SECONDS = 5.0
"""A change is in service after two looks at the file."""

REFUSED_ALERT = "rules_refused"


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
    path: Path = settings.config_file(RulesConfig.FILE)
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        return f"{type(error).__name__}: {error.strerror}"


class RulesWatch:
    """Remembers the rules in service, writes their changes down and tells of a bad file."""

    def __init__(self, settings: Settings, followed: FollowedRules) -> None:
        self._settings, self._followed = settings, followed
        self._standing = self._written = read_standing(settings)

    def look(self) -> None:
        before, rules, problem = self._standing, self._followed.current, self._followed.problem
        if not (rules.rules or before.rules.rules or problem or before.problem):
            return  # a shop without rules has no note of them
        self._standing = record(self._settings, before, rules, datetime.now(UTC))
        if problem != before.problem:
            tell_of_problem(self._settings, problem)
            self._standing = replace(self._standing, problem=problem)
        if self._standing != self._written:
            write_standing(self._settings, self._standing)
            self._written = self._standing


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
