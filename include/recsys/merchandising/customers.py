"""All customers at once: those whom the served model knows, and those who came since."""

import contextlib
import logging
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import NamedTuple

from recsys.arrays import BoolArray, Float32Array
from recsys.database import connect
from recsys.errors import InputError
from recsys.merchandising.audit import rules_in_force
from recsys.merchandising.live_events import customers_of, events_of, live_database
from recsys.merchandising.placements import Placement, PlacementsConfig, placements_in_force
from recsys.merchandising.ranking import scores_of
from recsys.merchandising.recommending import LiveEvent, Snapshot, history_of
from recsys.merchandising.rules import RuleSet
from recsys.merchandising.served_model import last_served
from recsys.merchandising.snapshots import load_snapshot, steered
from recsys.models.base import Histories
from recsys.models.histories import joined, user_range
from recsys.registry import Registry
from recsys.settings import Settings

logger = logging.getLogger(__name__)

_CELLS_AT_ONCE = 2_000_000


class Block(NamedTuple):
    """Some customers, with what each did until now, and what of that is in no version yet."""

    user_ids: list[str]
    histories: Histories
    live: Mapping[str, tuple[LiveEvent, ...]]


def load_served(settings: Settings) -> Snapshot:
    """The model in service with the shop's newest catalogue, steered by its rules as they stand.
    Raises `InputError` if there is no model, or it is not sound."""
    registry, best = Registry(settings), None
    model_id = last_served(settings)
    if model_id is None:
        best = registry.current_best()
        if best is None:
            raise InputError("There is no model yet: run model_training and model_deployment.")
    entry = best or registry.get(str(model_id))
    loaded = load_snapshot(settings, registry.folder(entry), entry.model_id, 0, starting=True)
    placements = standing_placements(settings)
    return steered(loaded, standing_rules(settings), placements, datetime.now(UTC))


def standing_rules(settings: Settings) -> RuleSet:
    """The shop's rules; while their file is not good, those of before."""
    rules, problem = rules_in_force(settings)
    if problem is not None:
        logger.error("Rules refused, those of before go on | reason=%s", problem)
    return rules


def standing_placements(settings: Settings) -> Mapping[str, Placement]:
    """The shop's placements, in the same way. Raises `ConfigError` if there are none of before."""
    config, problem = placements_in_force(settings)
    if problem is not None:
        logger.error("Placements refused, those of before go on | reason=%s", problem)
    return config.placements


def placement_of(settings: Settings, name: str) -> Placement:
    """What a placement asks of its lists. Raises `InputError` for one that is not configured."""
    known = standing_placements(settings)
    if name not in known:
        names = ", ".join(sorted(known))
        raise InputError(f"{PlacementsConfig.FILE}: there is no placement {name}: expected {names}")
    return known[name]


@contextlib.contextmanager
def live_events(settings: Settings) -> Iterator[sqlite3.Connection | None]:
    """The events that the service holds, None where it has none. Raises `sqlite3.Error`."""
    path = live_database(settings)
    if not path.exists():
        yield None
        return
    with contextlib.closing(connect(path)) as database:
        yield database


def blocks(
    snapshot: Snapshot, database: sqlite3.Connection | None, size: int, now: int
) -> list[Callable[[], Block]]:
    """Makers of blocks of `size` customers: those whom the model knows in its order, then those
    who have live events alone, by their ids."""
    artifact = snapshot.artifact
    known = len(artifact.user_ids)
    came = customers_of(database) if database is not None else set()
    others = sorted(user for user in came if artifact.user_ids.position(user) is None)

    def events(user: str) -> tuple[LiveEvent, ...]:
        return events_of(database, user) if database is not None and user in came else ()

    def of_known(start: int) -> Callable[[], Block]:
        def block() -> Block:
            stop = min(start + size, known)
            users = [artifact.user_ids[row] for row in range(start, stop)]
            live = {user: events(user) for user in users if user in came}
            parts, begun = [], start
            for row, user in enumerate(users, start):
                if user in live:
                    parts.append(user_range(artifact.histories, begun, row))
                    parts.append(history_of(snapshot, user, live[user], [], now))
                    begun = row + 1
            parts.append(user_range(artifact.histories, begun, stop))
            return Block(users, joined(parts), live)

        return block

    def of_others(users: list[str]) -> Callable[[], Block]:
        def block() -> Block:
            live = {user: events(user) for user in users}
            made = [history_of(snapshot, user, live[user], [], now) for user in users]
            return Block(users, joined(made), live)

        return block

    return [
        *(of_known(start) for start in range(0, known, size)),
        *(of_others(others[start : start + size]) for start in range(0, len(others), size)),
    ]


def scored(
    snapshot: Snapshot, histories: Histories, barred: BoolArray, now: int
) -> Iterator[tuple[slice, Float32Array]]:
    """The scores of all users of `histories`, some at a time: which of them, and ``(some, items)``
    what `scores_of` gives."""
    at_once = max(1, _CELLS_AT_ONCE // len(snapshot.catalogue.item_ids))
    for start in range(0, histories.users, at_once):
        some = slice(start, min(start + at_once, histories.users))
        asked = user_range(histories, some.start, some.stop)
        theirs = barred[histories.indptr[some.start] : histories.indptr[some.stop]]
        catalogue, newcomers = snapshot.catalogue, snapshot.newcomers
        yield some, scores_of(snapshot.artifact.model, catalogue, newcomers, asked, theirs, now)
