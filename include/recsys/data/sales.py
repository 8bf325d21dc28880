"""How well each product sells at the moment: what tells of a launch before a model knows it."""

import numpy as np
import pandas as pd
import pyarrow as pa

from recsys import schema
from recsys.arrays import BoolArray, Float64Array, Int64Array
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
    times = [_times(table) for table in tables]
    since = max(int(each.max(initial=0)) for each in times) - DAYS * _DAY
    late = [_rows(table, each >= since) for table, each in zip(tables, times, strict=True)]
    return pd.concat(late, ignore_index=True)


def _times(rows: pd.DataFrame | pa.Table) -> Int64Array:
    times = rows[schema.TIMESTAMP]
    return microseconds(times if isinstance(times, pd.Series) else times.to_pandas())


def _rows(table: pd.DataFrame | pa.Table, chosen: BoolArray) -> pd.DataFrame:
    names = [*_COLUMNS, schema.WEIGHT]
    if isinstance(table, pa.Table):
        table = table.select(names).filter(pa.array(chosen)).to_pandas()
    else:
        table = table.loc[chosen, names]
    return table.astype({schema.USER: "str", schema.PRODUCT: "str"})
