"""What the service remembers of the lists that it gives: `recsys.served_lists` writes it down."""

import functools
import time
from collections.abc import Callable

from recsys.experiments.definitions import CHECK_PLACEMENT
from recsys.ids import IdRules, normalise_id
from recsys.served_lists import ListLog, ServedList, id_text, new_id
from recsys.settings import Settings
from serving.config import ServingConfig
from serving.rules import FollowedPlacements
from serving.schemas import ListRequest
from serving.shared import Counters

DEMO = "demo"
"""The placement of the demo page, which is there whatever the shop has."""

_REMEMBERED = 8192  # customers and sessions of whom is known whether they are one


class Recorder:
    """Gives every list its id, and records it where that is configured."""

    def __init__(
        self,
        settings: Settings,
        config: ServingConfig,
        ids: IdRules,
        counters: Counters,
        places: FollowedPlacements,
    ) -> None:
        self._listed, self._places = config.placements, places
        self.log = ListLog(settings, counters.count_lists) if config.record_lists else None
        remembered = functools.lru_cache(_REMEMBERED, typed=True)
        self._user = remembered(lambda sent: _known(sent, ids.user_fault))
        self._session = remembered(lambda sent: _known(sent, ids.session_fault))

    @property
    def placements(self) -> frozenset[str] | None:
        """Those that requests may name, None where they may name any."""
        if not self._listed:
            return None
        return frozenset({*self._listed, *self._places.current.placements, DEMO})

    def record(
        self,
        body: ListRequest,
        *,
        endpoint: str,
        model_id: str,
        method: str | None,
        products: tuple[str, ...],
        sources: str,
        propensities: tuple[float, ...] | None = None,
        side: tuple[str, str] | None = None,
    ) -> str:
        """The id of the list of `products` that answers `body`; `method` is the fallback that made
        it, `sources` a letter of `recsys.served_lists.SOURCES` for each, `propensities` where
        places were drawn, `side` the experiment and variant of whom it is for."""
        moment = time.time()
        list_id = new_id(moment)
        log, placement = self.log, body.placement
        if log is not None and placement != CHECK_PLACEMENT:  # nobody sees those
            user, session = self._whom(body)
            experiment, variant = side or ("", "")
            log.record(
                ServedList(
                    list_id,
                    moment,
                    user,
                    session,
                    placement or "",
                    endpoint,
                    model_id,
                    method,
                    experiment,
                    variant,
                    products,
                    sources,
                    propensities,
                )
            )
        return id_text(list_id)

    def unit(self, body: ListRequest) -> str | None:
        """For whom the list counts: the user, else the session, else nobody."""
        user, session = self._whom(body)
        return user or session

    def _whom(self, body: ListRequest) -> tuple[str | None, str | None]:
        """User and session, as far as they are one."""
        user, session = getattr(body, "user_id", None), body.session_id
        return (
            None if user is None else self._user(user),
            None if session is None else self._session(session),
        )

    def close(self) -> None:
        """Write what waits."""
        if self.log is not None:
            self.log.close()


def _known(sent: int | str, fault: Callable[[str], str | None]) -> str | None:
    """The id of one customer or session, None if it stands for nobody or for many."""
    text = normalise_id(sent)
    return None if fault(text) else text
