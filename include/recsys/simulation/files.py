"""Traffic of the past as the service would have left it: lists in segments, events staged."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from recsys import schema
from recsys.arrays import Int64Array, ObjectArray
from recsys.data.simulated import PREFIX, note_traffic
from recsys.data.staging import write_past_events
from recsys.served_lists import SegmentWriter, ServedList, id_text
from recsys.settings import Settings
from recsys.simulation.traffic import KINDS, Events, Traffic
from recsys.simulation.truth import Truth
from recsys.simulation.visits import PLACEMENTS

ENDPOINTS = ("recommend", "similar_items", "recommend")
"""What is asked for each of `PLACEMENTS`."""

_LISTS, _EVENTS = 5_000, 100_000  # written at a time


def write_traffic(settings: Settings, traffic: Traffic) -> dict[str, int]:
    """Write lists and events of `traffic`, and note that they are simulated; how many there were.
    Raises `OSError` if they cannot be written; some of them may then be."""
    period, events = traffic.period, event_table(traffic)
    since, until = (moment.astimezone(period.zone) for moment in (period.since, period.until))
    # First: what is simulated must not stand there without the note.
    note_traffic(settings, since, until, len(traffic.lists), len(events))
    write_lists(settings, traffic)
    write_events(settings, events)
    return {"lists": len(traffic.lists), "events": len(events)}


def write_lists(settings: Settings, traffic: Traffic) -> None:
    """Write the served lists as segments of a writer that has ended."""
    writer = SegmentWriter(settings)
    try:
        for first in range(0, len(traffic.lists), _LISTS):
            lists = list(served_lists(traffic, first, first + _LISTS))
            with writer.turn:
                last = writer.count(len(lists))
            writer.append(last, lists)
            if writer.is_due():
                writer.change()
    finally:
        writer.close()


def write_events(settings: Settings, events: pd.DataFrame) -> None:
    """Stage `events`, as `event_table` has them, as if they had been received when they say."""
    told = events.astype({schema.TIMESTAMP: str, schema.RECEIVED: str, schema.KIND: str})
    numbers = [schema.VALUE, schema.RATING]
    told[numbers] = told[numbers].astype(object).where(told[numbers].notna(), None)
    for first in range(0, len(told), _EVENTS):
        rows = told.iloc[first : first + _EVENTS]
        each = zip(*(rows[name].tolist() for name in rows), strict=True)
        names = [str(name) for name in rows]
        write_past_events(settings, (dict(zip(names, row, strict=True)) for row in each))


def event_table(traffic: Traffic, events: Events | None = None) -> pd.DataFrame:
    """The events of `traffic`, or those given, by the names that others know: the columns of
    `recsys.schema` of events and signals, in order of their arrival."""
    events = traffic.events if events is None else events
    ids = traffic.lists.ids
    texts = np.full(len(events), "", dtype=object)
    texts[events.named] = [id_text(one.tobytes()) for one in ids[events.lists[events.named]]]
    unknown = events.numbers[events.strange]
    texts[events.strange] = [f"00000000-0000-7000-8000-{number:012x}" for number in unknown]
    shown_at = np.array(PLACEMENTS, dtype=object)[traffic.lists.shown.placements[events.lists]]
    return pd.DataFrame(
        {
            schema.EVENT: [f"{PREFIX}{traffic.salt}-{one}" for one in events.numbers.tolist()],
            schema.USER: _named(traffic.customer_ids, events.customers),
            schema.PRODUCT: traffic.product_ids[events.products],
            schema.KIND: np.array([str(kind) for kind in KINDS], dtype=object)[events.kinds],
            schema.TIMESTAMP: _moments(events.times),
            schema.RECEIVED: _moments(events.received),
            schema.QUANTITY: events.quantities,
            schema.VALUE: events.values,
            schema.RATING: events.ratings,
            schema.RECOMMENDATION: texts,
            schema.PLACEMENT: np.where(events.named, shown_at, ""),
            schema.SESSION: session_ids(traffic, events.visits),
        }
    )


def truth_table(truth: Truth) -> pd.DataFrame:
    """What counts, by the names that others know: RECOMMENDATION (of the list that the event
    belongs to), PRODUCT, KIND, EVENT, VALUE, and ``day``, the list's date in the shop."""
    traffic = truth.traffic
    table = event_table(traffic, traffic.events.take(truth.rows))
    ids = traffic.lists.ids[truth.lists]
    table[schema.RECOMMENDATION] = [id_text(one.tobytes()) for one in ids]
    days = traffic.period.days_of(traffic.lists.shown.times[truth.lists])
    table["day"] = np.datetime64("1970-01-01", "D") + days
    columns = [schema.RECOMMENDATION, schema.PRODUCT, schema.KIND, schema.EVENT, schema.VALUE]
    return table[[*columns, "day"]]


def served_lists(traffic: Traffic, first: int, end: int) -> Iterator[ServedList]:
    """The lists ``first:end`` as the service records them."""
    lists, rows = traffic.lists, slice(first, end)
    shown = lists.shown
    whose = np.where(shown.known[rows], shown.customers[rows], -1)
    users, sessions = _named(traffic.customer_ids, whose), session_ids(traffic, shown.visits[rows])
    products = traffic.product_ids[lists.products[rows]].tolist()
    columns = (shown.times[rows].tolist(), shown.placements[rows].tolist(), lists.sides[rows])
    of_side = [(side.model_id, side.experiment, side.variant) for side in traffic.sides]
    letters = "m" * lists.products.shape[1]
    rest = zip(lists.ids[rows], users, sessions, products, *columns, strict=True)
    for number, user, session, held, time, place, side in rest:
        model_id, experiment, variant = of_side[side]
        yield ServedList(
            id=number.tobytes(),
            time=time / 1000,
            user_id=user or None,
            session_id=session,
            placement=PLACEMENTS[place],
            endpoint=ENDPOINTS[place],
            model_id=model_id,
            fallback_method=None,
            experiment=experiment,
            variant=variant,
            products=tuple(held),
            sources=letters,
        )


def session_ids(traffic: Traffic, visits: Int64Array) -> ObjectArray:
    """``(n,)`` a text for each visit, "" for none."""
    texts = [f"{PREFIX}{traffic.salt}-{one}" if one >= 0 else "" for one in visits.tolist()]
    return np.array(texts, dtype=object)


def _named(names: ObjectArray, numbers: Int64Array) -> ObjectArray:
    found: ObjectArray = np.where(numbers >= 0, names[numbers], "")
    return found


def _moments(microseconds: Int64Array) -> pd.Series:
    return pd.Series(microseconds.astype("datetime64[us]")).dt.tz_localize("UTC")
