"""How well each product sells at the moment: what tells of a launch before a model knows it."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from recsys import schema
from recsys.arrays import Float64Array
from recsys.data.bursts import YOUNG_DAYS, within_bounds
from recsys.data.keys import microseconds
from recsys.schema import Kind

DAYS, HALF_LIFE_DAYS = 60, 30
"""What was sold earlier would count less than a quarter, and counts nothing: a product is launched
in weeks, and a refresh has few rows to look at."""

_DAY = 86_400_000_000
_DIGITS = 3
_COLUMNS = [schema.USER, schema.PRODUCT, schema.TIMESTAMP]


def recent_sales(
    item_ids: list[str], interactions: pd.DataFrame | pa.Table, signals: pd.DataFrame | None
) -> Float64Array:
    """``(items,)`` how many customers bought or rated each product, a sale halved every 30 days
    before the latest one of the shop, a review by its `recsys.schema.WEIGHT`. The surplus of new
    accounts does not count (`recsys.data.bursts`); one is new for 28 days from the first that it
    did in these 60. The order of the rows does not matter."""
    rows = _sold(interactions, signals)
    item = pd.Index(item_ids).get_indexer(pd.Index(rows[schema.PRODUCT]))
    known = item >= 0
    item, user = item[known], pd.factorize(rows[schema.USER])[0][known]
    time = microseconds(rows[schema.TIMESTAMP])[known]
    weight = rows[schema.WEIGHT].to_numpy(np.float64)[known]
    # Of what one customer did with a product the latest counts.
    pair = user * len(item_ids) + item
    order = np.lexsort((weight, time, pair))
    latest = order[np.diff(pair[order], append=-1) != 0]
    item, user, time, weight = item[latest], user[latest], time[latest], weight[latest]
    first = np.full(int(user.max(initial=-1)) + 1, np.iinfo(np.int64).max)
    np.minimum.at(first, user, time)
    young = time - first[user] < YOUNG_DAYS * _DAY
    kept = np.flatnonzero(within_bounds(young, time, item, len(item_ids)))
    kept = kept[np.lexsort((weight[kept], time[kept], item[kept]))]  # sums know no other order
    age = (time.max(initial=0) - time[kept]) / (_DAY * HALF_LIFE_DAYS)
    sales = np.bincount(item[kept], weight[kept] * np.exp2(-age), minlength=len(item_ids))
    return np.asarray(np.round(sales, _DIGITS), dtype=np.float64)


def _sold(interactions: pd.DataFrame | pa.Table, signals: pd.DataFrame | None) -> pd.DataFrame:
    """What was bought or rated in the last `DAYS`: USER, PRODUCT, TIMESTAMP and WEIGHT."""
    tables: list[pd.DataFrame | pa.Table] = [interactions]
    if signals is not None:
        bought = signals.loc[signals[schema.KIND] == Kind.PURCHASE.value, _COLUMNS]
        tables.append(bought.assign(**{schema.WEIGHT: np.float32(1)}))
    since = max(map(_latest_time, tables)) - DAYS * _DAY
    return pd.concat([_late_rows(table, since) for table in tables], ignore_index=True)


def _latest_time(rows: pd.DataFrame | pa.Table) -> int:
    if isinstance(rows, pa.Table):
        return pc.max(rows[schema.TIMESTAMP]).cast(pa.int64()).as_py() or 0
    return int(microseconds(rows[schema.TIMESTAMP]).max(initial=0))


def _late_rows(rows: pd.DataFrame | pa.Table, since: int) -> pd.DataFrame:
    names = [*_COLUMNS, schema.WEIGHT]
    if isinstance(rows, pa.Table):
        time = rows[schema.TIMESTAMP]
        late = pc.greater_equal(time, pa.scalar(since, pa.int64()).cast(time.type))
        found = rows.select(names).filter(late).to_pandas()
    else:
        found = rows.loc[microseconds(rows[schema.TIMESTAMP]) >= since, names]
    return found.astype({schema.USER: "str", schema.PRODUCT: "str"})
