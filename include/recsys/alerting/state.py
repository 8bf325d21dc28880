"""What has been told, to whom, and what is still wrong: ``logs/service/alert_state.db``.

Every process asks here before it sends. A claim is one write transaction, so of several that see
the same thing at the same time one sends and the others hold back."""

import contextlib
import json
import sqlite3
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any, Final, NamedTuple

from recsys.alerting.message import Alert, Channel, Severity
from recsys.database import HelperDatabase, transaction

# Rows of `alerts` are events that were told; `repeats` counts what was held back since.
# Times are seconds since 1970: they are compared with spans, never shown.
SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS alerts (
  alert_id INTEGER PRIMARY KEY AUTOINCREMENT,
  alert_key TEXT NOT NULL,
  severity TEXT NOT NULL,
  content TEXT NOT NULL,
  created_at REAL NOT NULL,
  repeats INTEGER NOT NULL DEFAULT 0,
  resolved_at REAL
);
CREATE INDEX IF NOT EXISTS alerts_by_key ON alerts (alert_key, resolved_at, alert_id);
CREATE TABLE IF NOT EXISTS deliveries (
  alert_id INTEGER NOT NULL REFERENCES alerts ON DELETE CASCADE,
  channel TEXT NOT NULL,
  status TEXT NOT NULL,
  attempts INTEGER NOT NULL DEFAULT 1,
  updated_at REAL NOT NULL,
  error TEXT,
  PRIMARY KEY (alert_id, channel)
);
"""

SENDING: Final = "sending"
SENT: Final = "sent"
FAILED: Final = "failed"
NOT_SET_UP: Final = "not set up"

KEPT: Final = timedelta(days=90)
MOST_ATTEMPTS: Final = 25
# After this a sender that has not reported back is taken for dead.
LEASE: Final = timedelta(minutes=5)
_BUSY_SECONDS: Final = 10.0


class Claim(NamedTuple):
    """The channels that the caller, and nobody else, now has to deliver the alert to."""

    alert_id: int
    channels: tuple[Channel, ...]


class Cleared(NamedTuple):
    """A condition that was active until now: its severity, and the channels that were told."""

    alert_id: int
    severity: Severity
    channels: tuple[Channel, ...]


class AlertState:
    """The memory of the alerts; safe to share between processes."""

    def __init__(self, path: Path, timeout: float = _BUSY_SECONDS) -> None:
        self.path = path
        self._database = HelperDatabase(path, _prepare, timeout=timeout)

    def claim(
        self, alert: Alert, channels: Sequence[Channel], now: datetime, cooldown: timedelta
    ) -> Claim:
        """Decide which of `channels` have yet to hear of `alert`, and take them.

        None of them, if all were told within the cool-down (or ever, if the alert counts
        ``until_resolved``) at the same or a higher severity, and it was not resolved since."""
        with self._writing() as database:
            told = database.execute(
                "SELECT alert_id, severity, created_at FROM alerts"
                " WHERE alert_key = ? AND resolved_at IS NULL ORDER BY alert_id DESC LIMIT 1",
                (alert.identity,),
            ).fetchone()
            if told is not None and _is_repeat(alert, told, now, cooldown):
                alert_id = int(told["alert_id"])
                deliveries = "SELECT channel FROM deliveries WHERE alert_id = ?"
                informed = {row["channel"] for row in database.execute(deliveries, (alert_id,))}
                wanted = tuple(channel for channel in channels if channel not in informed)
                if not wanted:
                    repeat = "UPDATE alerts SET repeats = repeats + 1 WHERE alert_id = ?"
                    database.execute(repeat, (alert_id,))
            else:
                alert_id, wanted = _insert(database, alert, now), tuple(channels)
            database.executemany(
                "INSERT INTO deliveries (alert_id, channel, status, updated_at)"
                " VALUES (?, ?, ?, ?)",
                [(alert_id, channel, SENDING, now.timestamp()) for channel in wanted],
            )
        return Claim(alert_id, wanted)

    def finish(
        self, alert_id: int, channel: Channel, status: str, now: datetime, error: str | None = None
    ) -> None:
        """Record how a claimed delivery ended."""
        with self._writing() as database:
            database.execute(
                "UPDATE deliveries SET status = ?, updated_at = ?, error = ?"
                " WHERE alert_id = ? AND channel = ?",
                (status, now.timestamp(), error, alert_id, channel),
            )

    def resolve(self, key: str, now: datetime) -> Cleared | None:
        """Mark the condition `key` as cleared; None if it was not active (any more)."""
        with self._writing() as database:
            rows = database.execute(
                "SELECT alert_id, severity, channel, status FROM alerts LEFT JOIN deliveries"
                " USING (alert_id) WHERE alert_key = ? AND resolved_at IS NULL",
                (key,),
            ).fetchall()
            if not rows:
                return None
            database.execute(
                "UPDATE alerts SET resolved_at = ? WHERE alert_key = ? AND resolved_at IS NULL",
                (now.timestamp(), key),
            )
        told = {row["channel"] for row in rows if row["status"] == SENT}
        return Cleared(
            max(int(row["alert_id"]) for row in rows),
            max((Severity(row["severity"]) for row in rows), key=lambda severity: severity.rank),
            tuple(channel for channel in Channel if channel in told),
        )

    def active(self, key_prefix: str) -> list[str]:
        """The keys that begin with `key_prefix`, of conditions that are active."""
        with self._database.use() as database:
            rows = database.execute(
                "SELECT DISTINCT alert_key FROM alerts WHERE resolved_at IS NULL"
                " AND substr(alert_key, 1, length(?1)) = ?1 ORDER BY alert_key",
                (key_prefix,),
            )
            return [str(row["alert_key"]) for row in rows]

    def take_undelivered(self, now: datetime, max_age: timedelta) -> list[tuple[Alert, Claim]]:
        """Take over what a channel refused, or a sender left when it died, not longer ago. Alerts
        whose condition has cleared meanwhile, or that were told again since, are left alone."""
        oldest = (now - max_age).timestamp()
        with self._writing() as database:
            rows = database.execute(
                "SELECT alert_id, content, channel FROM deliveries JOIN alerts USING (alert_id)"
                " WHERE (status = ?1 OR status = ?2 AND updated_at < ?3) AND attempts < ?4"
                " AND created_at > ?5 AND resolved_at IS NULL"
                " AND alert_id = (SELECT MAX(alert_id) FROM alerts AS newer"
                "                 WHERE newer.alert_key = alerts.alert_key)"
                " ORDER BY alert_id, channel",
                (FAILED, SENDING, (now - LEASE).timestamp(), MOST_ATTEMPTS, oldest),
            ).fetchall()
            database.executemany(
                "UPDATE deliveries SET status = ?, updated_at = ?, attempts = attempts + 1"
                " WHERE alert_id = ? AND channel = ?",
                [(SENDING, now.timestamp(), row["alert_id"], row["channel"]) for row in rows],
            )
        return [
            (Alert.from_json(content), Claim(int(alert_id), (Channel(channel),)))
            for alert_id, content, channel in rows
        ]

    def was_told_since(self, key_prefix: str, since: datetime) -> bool:
        """Whether any alert whose key begins with `key_prefix` was sent since then."""
        with self._database.use() as database:
            rows = database.execute(
                "SELECT 1 FROM alerts WHERE substr(alert_key, 1, length(?1)) = ?1"
                " AND created_at >= ?2 LIMIT 1",
                (key_prefix, since.timestamp()),
            )
            return rows.fetchone() is not None

    def told_since(self, since: datetime) -> list[tuple[str, Severity, datetime]]:
        """Name, severity and last time of what was told since then, the latest first; notices that
        something is over are not among them."""
        with self._database.use() as database:
            rows = database.execute(
                "SELECT json_extract(content, '$.name') AS name, severity, MAX(created_at) AS at"
                " FROM alerts WHERE created_at >= ? AND NOT json_extract(content, '$.resolved')"
                " GROUP BY 1, 2 ORDER BY at DESC, 1, 2",
                (since.timestamp(),),
            ).fetchall()
        return [(one[0], Severity(one[1]), datetime.fromtimestamp(one[2], UTC)) for one in rows]

    def last_deliveries(self) -> dict[Channel, str]:
        """How the last delivery of each channel that has tried one ended: `SENT` or `FAILED`."""
        with self._database.use() as database:
            rows = database.execute(
                "SELECT channel, status, MAX(updated_at) FROM deliveries WHERE status IN (?, ?)"
                " GROUP BY channel",
                (SENT, FAILED),
            ).fetchall()
        return {Channel(row["channel"]): str(row["status"]) for row in rows}

    def recent(
        self, limit: int, zone: tzinfo, since: datetime | None = None
    ) -> list[dict[str, Any]]:
        """The last `limit` alerts (told `since` then, or told once and not over), newest first:
        ``alert``, ``at`` which time in `zone`, how many ``repeats`` were held back, the state of
        the ``deliveries`` by channel, and when it was over (``resolved_at``; None while it is
        not)."""
        with self._database.use() as database:
            rows = database.execute(
                "SELECT content, created_at AS at, repeats, resolved_at,"
                " (SELECT json_group_object(channel, status) FROM deliveries"
                "  WHERE alert_id = alerts.alert_id) AS deliveries"
                " FROM alerts WHERE created_at >= ? OR (resolved_at IS NULL"
                "  AND json_extract(content, '$.until_resolved')"
                "  AND NOT coalesce(json_extract(content, '$.event'), 0))"
                " ORDER BY alert_id DESC LIMIT ?",
                (since.timestamp() if since else 0.0, limit),
            ).fetchall()
        return [
            {
                "at": datetime.fromtimestamp(row["at"], zone),
                "alert": Alert.from_json(row["content"]),
                "repeats": row["repeats"],
                "deliveries": json.loads(row["deliveries"]),
                "resolved_at": row["resolved_at"]
                and datetime.fromtimestamp(row["resolved_at"], zone),
            }
            for row in rows
        ]

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._database.use() as database, transaction(database):
            yield database


def _prepare(database: sqlite3.Connection) -> None:
    if database.execute("PRAGMA user_version").fetchone()[0] == 0:
        database.executescript(f"BEGIN IMMEDIATE; {SCHEMA} PRAGMA user_version = 1; COMMIT;")
    # Are they our tables?
    database.execute("EXPLAIN SELECT alert_key, resolved_at, repeats, content FROM alerts")
    database.execute("EXPLAIN SELECT channel, status, attempts, error FROM deliveries")


def _is_repeat(alert: Alert, told: sqlite3.Row, now: datetime, cooldown: timedelta) -> bool:
    if alert.severity.rank > Severity(told["severity"]).rank:
        return False
    # abs: a clock that was set back must not hold an alert back for longer than the cool-down.
    age = abs(now.timestamp() - told["created_at"])
    return alert.until_resolved or age < cooldown.total_seconds()


def _insert(database: sqlite3.Connection, alert: Alert, now: datetime) -> int:
    database.execute("DELETE FROM alerts WHERE created_at < ?", ((now - KEPT).timestamp(),))
    cursor = database.execute(
        "INSERT INTO alerts (alert_key, severity, content, created_at) VALUES (?, ?, ?, ?)",
        (alert.identity, alert.severity, alert.to_json(), now.timestamp()),
    )
    assert cursor.lastrowid is not None
    return cursor.lastrowid
