"""Served lists and events in the formats that the job reads."""

import math
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pandas as pd
import pyarrow as pa

from recsys import schema
from recsys.data.staging import write_past_events
from recsys.outcomes.figures import DIMENSIONS
from recsys.outcomes.partitions import SCHEMA
from recsys.served_lists import SegmentWriter, ServedList
from recsys.settings import Settings

NOON = datetime(2026, 3, 10, 5, tzinfo=UTC)  # twelve o'clock in Ho Chi Minh City


def list_id(time: datetime, number: int) -> uuid.UUID:
    """A UUIDv7 of that moment."""
    milliseconds = int(time.timestamp() * 1000)
    return uuid.UUID(int=milliseconds << 80 | 7 << 76 | 2 << 62 | number)


def a_list(
    number: int, products: Sequence[str], user: str = "u", hours: float = 0, **other: Any
) -> dict[str, Any]:
    """A served list, `hours` after noon."""
    time = NOON + timedelta(hours=hours)
    defaults = {
        schema.RECOMMENDATION: list_id(time, number).bytes,
        "time": time,
        schema.USER: user,
        schema.SESSION: "",
        schema.PLACEMENT: "home",
        "endpoint": "recommend",
        "model_id": "als_1",
        "fallback_method": "",
        "experiment": "",
        "variant": "",
        "products": list(products),
        "sources": "m" * len(products),
        "propensities": [],
    }
    return defaults | other


def lists_of(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), schema=SCHEMA)


def an_event(
    number: int | str,
    product: str,
    kind: str = "click",
    user: str = "u",
    hours: float = 1,
    **other: Any,
) -> dict[str, Any]:
    """An event, `hours` after noon."""
    time = NOON + timedelta(hours=hours)
    defaults = {
        schema.EVENT: f"e{number}",
        schema.USER: user,
        schema.PRODUCT: product,
        schema.KIND: kind,
        schema.TIMESTAMP: time,
        schema.RECEIVED: time,
        schema.QUANTITY: 1.0,
        schema.VALUE: float("nan"),
        schema.RECOMMENDATION: "",
        schema.PLACEMENT: "",
        schema.SESSION: "",
    }
    return defaults | other


def events_of(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """The frame as `recsys.data.event_log` gives it."""
    frame = pd.DataFrame(list(rows), columns=list(an_event(0, "p")))
    texts = (schema.EVENT, schema.USER, schema.PRODUCT, schema.KIND, schema.RECOMMENDATION)
    kinds = dict.fromkeys((*texts, schema.PLACEMENT, schema.SESSION), "str")
    moments = dict.fromkeys((schema.TIMESTAMP, schema.RECEIVED), "datetime64[us, UTC]")
    numbers = {schema.QUANTITY: "float32", schema.VALUE: "float64"}
    return frame.astype(kinds | moments | numbers)


def record(settings: Settings, rows: Sequence[Mapping[str, Any]], lost: int = 0) -> None:
    """Hand lists in as the service does, with a gap at the end."""
    writer = SegmentWriter(settings)
    lists = [
        ServedList(
            id=row[schema.RECOMMENDATION],
            time=row["time"].timestamp(),
            user_id=row[schema.USER] or None,
            session_id=row[schema.SESSION] or None,
            products=tuple(row["products"]),
            fallback_method=row["fallback_method"] or None,
            propensities=tuple(row["propensities"]) or None,
            **{name: row[name] for name in (*DIMENSIONS, "sources")},
        )
        for row in rows
    ]
    writer.append(writer.count(len(lists)), lists)
    writer.count(lost)
    writer.close()


def send(
    settings: Settings, rows: Sequence[Mapping[str, Any]], received: datetime | None = None
) -> None:
    """Send events to the service, which they reach at the time that they say, or then."""
    events = []
    for row in rows:
        event = {key: value for key, value in row.items() if value not in ("", None)}
        event[schema.TIMESTAMP] = row[schema.TIMESTAMP].isoformat()
        event[schema.RECEIVED] = (received or row[schema.RECEIVED]).isoformat()
        if math.isnan(row[schema.VALUE]):
            del event[schema.VALUE]
        events.append(event)
    write_past_events(settings, events)
