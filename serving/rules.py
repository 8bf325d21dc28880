"""Rules and placements in service: every worker follows the files, worker 0 tells for all."""

import hashlib
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Generic, TypeVar

from recsys.merchandising.audit import (
    Told,
    read_standing,
    record,
    rules_in_force,
    write_standing,
)
from recsys.merchandising.placements import (
    PlacementsConfig,
    StandingPlacements,
    placements_in_force,
    read_standing_placements,
    write_standing_placements,
)
from recsys.merchandising.rule_warnings import RuleWarning
from recsys.merchandising.rules import RulesConfig, RuleSet
from recsys.settings import Settings

logger = logging.getLogger(__name__)

Content = TypeVar("Content")

RULES_SECONDS = 5.0
"""A change is in service after two looks at the file."""

WARNING_ALERT = "rules_warning"
_WARNINGS_SECONDS = 600.0  # time passes, and so does the catalogue
_DAY_SECONDS = 86_400.0


class Followed(Generic[Content]):
    """What a file says, and of a bad one what it said last. Reading `current` needs no lock: it is
    one reference, replaced by one assignment."""

    def __init__(
        self,
        settings: Settings,
        file: str,
        read: Callable[[Settings, Content | None], tuple[Content, str | None]],
    ) -> None:
        self._settings, self._file, self._read = settings, file, read
        self._known = self._seen = self._digest()
        self.current: Content
        self.problem: str | None
        """Why the file does not count as it is; None when it does."""
        self.current, self.problem = read(settings, None)
        self._log_problem()

    def look(self) -> bool:
        """Read the file again if it is another one; whether it says something else now. A new
        content counts when two looks have seen it: an editor may be half through with the first."""
        digest = self._digest()
        settled, self._seen = digest == self._seen, digest
        if not settled or digest == self._known:
            return False
        before, self._known = self.current, digest
        self.current, self.problem = self._read(self._settings, before)
        self._log_problem()
        if self.problem is None:
            logger.info("%s in service | sha256=%s", self._file, digest)
        return self.current != before

    def _log_problem(self) -> None:
        if self.problem is not None:
            logger.error("%s refused, what was before goes on | %s", self._file, self.problem)

    def _digest(self) -> str:
        """Of what the file holds; of one that cannot be read, of why."""
        try:
            with self._settings.config_file(self._file).open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            return f"{type(error).__name__}: {error.strerror}"


class _Note(Generic[Content]):
    """What a watch has written down of what is in service."""

    def __init__(
        self,
        settings: Settings,
        what: str,
        written: Content,
        write: Callable[[Settings, Content], None],
    ) -> None:
        self._settings, self._what, self._write = settings, what, write
        self.written, self._failing = written, False

    def keep(self, standing: Content) -> None:
        """Write it down if it is new; on a full disk at the next look, and the log says so once."""
        if standing == self.written:
            return
        try:
            self._write(self._settings, standing)
        except OSError as error:
            if not self._failing:
                sentence = "The %s in service cannot be written down | error=%s"
                logger.error(sentence, self._what, error)
            self._failing = True
            return
        self.written, self._failing = standing, False


class FollowedRules(Followed[RuleSet]):
    """The rules in service."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings, RulesConfig.FILE, rules_in_force)


class FollowedPlacements(Followed[PlacementsConfig]):
    """The placements in service. Raises `ConfigError` if there is no good file and was none."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings, PlacementsConfig.FILE, placements_in_force)


class RulesWatch:
    """Remembers the rules in service, writes their changes down, and tells of a bad file and, once
    a day at most, of rules that will not get what they ask for."""

    def __init__(
        self, settings: Settings, followed: FollowedRules, warnings: Callable[[], list[RuleWarning]]
    ) -> None:
        self._settings, self._followed, self._warnings = settings, followed, warnings
        self._standing = read_standing(settings)
        self._note = _Note(settings, "rules", self._standing, write_standing)
        self._warned_of, self._warn_at = RuleSet(), 0.0

    def look(self) -> None:
        before, rules, problem = self._standing, self._followed.current, self._followed.problem
        if not (rules.rules or before.rules.rules or problem or before.problem):
            return  # a shop without rules has no note of them
        now = datetime.now(UTC)
        self._standing = record(self._settings, before, rules, now)
        if problem != before.problem:
            tell_of_refusal(self._settings, "rules", problem)
            self._standing = replace(self._standing, problem=problem)
        if rules != self._warned_of or time.monotonic() >= self._warn_at:
            self._warned_of, self._warn_at = rules, time.monotonic() + _WARNINGS_SECONDS
            told = self._tell_of_warnings(self._standing.told, now.timestamp())
            self._standing = replace(self._standing, told=told)
        self._note.keep(self._standing)

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


class PlacementsWatch:
    """Remembers the placements in service, and tells of a bad file."""

    def __init__(self, settings: Settings, followed: FollowedPlacements) -> None:
        self._settings, self._followed = settings, followed
        self._standing = read_standing_placements(settings)
        self._note = _Note(settings, "placements", self._standing, write_standing_placements)

    def look(self) -> None:
        before = self._standing
        self._standing = StandingPlacements(self._followed.current, self._followed.problem)
        if self._standing.problem != before.problem:
            problem = self._standing.problem
            tell_of_refusal(self._settings, "placements", problem)
        own = self._settings.config / PlacementsConfig.FILE
        # A shop without placements of its own has no note of them.
        if own.exists() or self._note.written.config is not None:
            self._note.keep(self._standing)


def tell_of_refusal(settings: Settings, what: str, problem: str | None) -> None:
    """Tell what is wrong with the file of `what`, or that nothing is any more."""
    from recsys.alerting import Alert, AlertManager, Severity

    if problem is None:
        AlertManager(settings).resolve(f"{what}_refused", f"the {what} are as the file says again")
        return
    refused = Alert(
        f"{what}_refused",
        f"the {what} in the file are refused: those of before go on",
        Severity.WARNING,
        facts={"error": problem},
        until_resolved=True,
    )
    AlertManager(settings).deliver(refused)
