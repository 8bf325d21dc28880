"""What customers did since the newest version of the data, as the service keeps it beside it."""

import sqlite3
from pathlib import Path
from typing import Final

from recsys.merchandising.recommending import LiveEvent
from recsys.personal import Forgot, Found, PersonalData, Sought
from recsys.settings import Settings

GUEST: Final = "\x1f"
"""What the user of a guest begins with, before the session; it is in no id of a customer."""

USERS: Final = """
SELECT user_id FROM events WHERE kind IN ('click', 'view')
UNION SELECT user_id FROM events WHERE kind NOT IN ('click', 'view')
"""

# The newest of them, in the order they came. A customer of a busy year has some hundred; a list
# from more would only take longer. Looks must not push out what was bought or dismissed.
_OF_USER = """
SELECT product_id, rating, time, kind FROM (
  SELECT * FROM (
    SELECT number, product_id, rating, time, kind FROM events
    WHERE user_id = :who AND kind NOT IN ('click', 'view') ORDER BY number DESC LIMIT :events)
  UNION ALL SELECT * FROM (
    SELECT number, product_id, rating, time, kind FROM events
    WHERE user_id = :who AND kind IN ('click', 'view') ORDER BY number DESC LIMIT :looks))
ORDER BY number
"""
_OF_USER_LIMITS = {"events": 500, "looks": 200}


def live_database(settings: Settings) -> Path:
    """Where the service keeps them."""
    return settings.home / "data" / "live_events.db"


def events_of(database: sqlite3.Connection, user_id: str) -> tuple[LiveEvent, ...]:
    """The newest events of a user, in the order they came. Raises `sqlite3.Error`."""
    rows = database.execute(_OF_USER, _OF_USER_LIMITS | {"who": user_id}).fetchall()
    return tuple(LiveEvent(*row) for row in rows)


def customers_of(database: sqlite3.Connection) -> set[str]:
    """Users with events who are no guests. Raises `sqlite3.Error`."""
    return {user for [user] in database.execute(USERS) if not user.startswith(GUEST)}


def _in_live_events(settings: Settings, sought: Sought) -> Found:
    from recsys.traces import in_table  # the service carries no Arrow

    for table, owner in _owners().items():
        yield from in_table(settings, sought, live_database(settings), table, owner)


def _from_live_events(settings: Settings, sought: Sought) -> Forgot:
    from recsys.erasing import from_tables

    yield from from_tables(settings, sought, live_database(settings), _owners())


def _owners() -> dict[str, str]:
    """Of each table the expression of whose a row is."""
    guest = f"substr({{0}}, 1, 1) = char({ord(GUEST)}) THEN of_session(substr({{0}}, 2))"
    owner = f"CASE WHEN {guest} ELSE of_user({{0}}) END"
    return {table: owner.format(column) for table, column in _PERSONAL.items()}


# Events are counted by product, too.
_PERSONAL: Final = {"events": "user_id", "daily": "(CASE WHEN kind LIKE 'user%' THEN id END)"}
PERSONAL: Final = (
    PersonalData(
        "events of the last days in the service",
        tuple(f"data/live_events.db#{table}" for table in _PERSONAL),
        "they count in the customer's lists at once, before a model has learnt of them",
        "ratings and purchases 30 days (`live_interaction_days` of `serving.yaml`), clicks and "
        "views one; counts of events a day, two days",
        _in_live_events,
        forget=_from_live_events,
    ),
)
