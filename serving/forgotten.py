"""Customers who are forgotten: every worker follows the register, whichever machine wrote it."""

import functools
import logging
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from recsys.errors import InputError
from recsys.privacy import Forgotten, Request, forgotten_by, lost_requests, overdue, read_requests
from recsys.pseudonyms import REQUESTS_KEY
from recsys.settings import Settings
from recsys.storage import open_store

logger = logging.getLogger(__name__)

FORGOTTEN_SECONDS = 0.4
"""Between two looks: whoever asks is forgotten everywhere within a second."""

_REMEMBERED = 65_536  # customers: one who is looked for costs a hundred times as much

UNREADABLE_ALERT = "register_unreadable"


class FollowedForgotten:
    """Who is forgotten, as far as this worker knows. Reading needs no lock: each is one reference,
    replaced by one assignment; `current` is None while the register could not be read even once."""

    def __init__(self, settings: Settings) -> None:
        self._settings, self._store = settings, open_store(settings)
        self._revision: str | None = ""  # that of no file
        self._requests: Sequence[Request] = ()
        self.current: Forgotten | None = None
        self._is_hidden: Callable[[int | str], bool] = lambda _: True
        self._looking = threading.Lock()
        self.problem: str | None = None
        """What is wrong with the register: what was known before still holds."""
        self.look()

    def look(self) -> None:
        """Take over what is new. One at a time: who read it earlier would miss requests that
        another one has taken over since, and call the register damaged."""
        with self._looking:
            self._look()

    def _look(self) -> None:
        try:
            revision = self._store.revision(REQUESTS_KEY)
            if revision == self._revision and self.problem is None:
                return
            requests, problem = read_requests(self._settings)
            if lost := lost_requests(requests, self._requests):
                raise InputError(f"{REQUESTS_KEY}: lacks {lost} requests that it had")
            self.current = known = forgotten_by(self._settings, requests)
            remembered = functools.lru_cache(_REMEMBERED)(known.__contains__)
            self._is_hidden = remembered if known else lambda _: False
            self._requests, self._revision = requests, revision
        except (InputError, OSError) as error:
            problem = str(error)
        if problem is not None and self.problem is None:
            sentence = "The register of customers' requests is not as it should be | problem=%s"
            logger.error(sentence, problem)
        self.problem = problem

    def hides(self, user_id: int | str | None) -> bool:
        """Whether nothing of this customer may be used: who is forgotten, and everybody while
        nobody knows who is."""
        return user_id is not None and self._is_hidden(user_id)

    def overdue(self) -> int:
        """How many requests should have been done by now."""
        return len(overdue(self._requests, datetime.now(UTC)))


def tell_of_register(settings: Settings, problem: str | None) -> None:
    """Tell what is wrong with the register, or that nothing is any more."""
    from recsys.alerting import Alert, AlertManager, Severity

    if problem is None:
        AlertManager(settings).resolve(UNREADABLE_ALERT, "the register can be read again")
        return
    alert = Alert(
        UNREADABLE_ALERT,
        "the register of customers' requests cannot be read: who was forgotten before still is",
        Severity.CRITICAL,
        facts={"error": problem},
        until_resolved=True,
    )
    AlertManager(settings).deliver(alert)
