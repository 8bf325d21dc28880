"""What the outcomes job tells of products that were shown: every worker follows it, where any
placement explores."""

import hashlib
import logging
from collections.abc import Callable

from recsys.errors import InputError
from recsys.merchandising.exploring import IMPRESSIONS_KEY, Seen, parse_impressions
from recsys.merchandising.placements import PlacementsConfig
from recsys.settings import Settings
from recsys.storage import open_store

logger = logging.getLogger(__name__)

IMPRESSIONS_SECONDS = 15.0


class FollowedImpressions:
    """What was shown, as far as this worker knows. Reading `current` needs no lock: it is one
    reference, replaced by one assignment; None where nothing is explored or nobody has counted."""

    def __init__(self, settings: Settings, config: Callable[[], PlacementsConfig]) -> None:
        self._settings, self._config = settings, config
        self._known: tuple[str, int] | None = None
        self.current: Seen | None = None
        self.look()

    def look(self) -> None:
        """Take over what is new; of a damaged file, or one that cannot be read, nothing."""
        config = self._config()
        if not any(one.explore for one in config.placements.values()):
            return
        try:
            content = open_store(self._settings).read(IMPRESSIONS_KEY)
            if content is None:
                return
            known = hashlib.sha256(content).hexdigest(), config.few_impressions
            if known != self._known:
                self._known = known
                self.current = Seen(parse_impressions(content), config.few_impressions)
        except (InputError, OSError) as error:
            logger.warning("What was shown cannot be read, exploring goes on | reason=%s", error)
