"""The figures of several days together: sums by block of users, and rates over them."""

from collections.abc import Collection, Mapping, Sequence
from datetime import date
from typing import Any, Final, NamedTuple

import numpy as np
import pandas as pd

from recsys import schema
from recsys.arrays import Float64Array
from recsys.experiments.definitions import HOLDOUT
from recsys.outcomes.attribution import POSITION
from recsys.outcomes.daily import read_day, read_explored, read_totals
from recsys.outcomes.figures import BLOCKS, LAST_POSITION, MONEY, REST, WHOLE
from recsys.outcomes.rates import Rate, Sums, rate, uplift
from recsys.settings import Settings


class Metric(NamedTuple):
    """A rate: so many of `counted` for each (times `per`) of `of`."""

    counted: str
    of: str
    per: float = 1.0


METRICS: Final = {
    "click_rate": Metric("clicks", "lists"),
    "cart_rate": Metric("carts", "lists"),
    "purchase_rate": Metric("purchases", "lists"),
    "value_per_1000_lists": Metric("value", "lists", 1000.0),
    "clicks_per_user": Metric("clicks", "users"),
    "purchases_per_user": Metric("purchases", "users"),
    "value_per_user": Metric("value", "users"),
    "bought_per_user": Metric("bought", "users"),
    "spent_per_user": Metric("spent", "users"),
}
"""A user counts once a day: rates per user are those of a customer and a day."""

OF_LISTS: Final = ("click_rate", "cart_rate", "purchase_rate", "value_per_1000_lists")
OF_ITEMS: Final = {
    "click_rate": Metric("clicks", "items"),
    "cart_rate": Metric("carts", "items"),
    "purchase_rate": Metric("purchases", "items"),
    "value_per_1000_lists": Metric("value", "items", 1000.0),
}
"""The same for each product that was shown: a list is of several sources and positions."""

EARNED: Final = (
    "clicks_per_user", "purchases_per_user", "value_per_user", "bought_per_user", "spent_per_user",
)  # fmt: skip
"""What the holdout is compared by."""


class Period:
    """The days from the first to the last of `days` that have figures. Of `silent` ones, whose
    events nobody knows, rates tell nothing: only counts have them. Raises `InputError` if the
    figures cannot be read."""

    def __init__(
        self, settings: Settings, days: Sequence[date], silent: Collection[date] = ()
    ) -> None:
        self._settings, self.days = settings, tuple(days)
        self._heard = [day not in silent for day in days]
        self.totals = {day: read_totals(settings, day) for day in days}
        frames = [read_day(settings, day, "slices").assign(day=n) for n, day in enumerate(days)]
        measures = [*WHOLE, *MONEY]
        rows = pd.concat(frames) if frames else pd.DataFrame(columns=[*_KEYS, "block", *measures])
        place = rows.groupby(list(_KEYS), sort=True).ngroup().to_numpy()
        heads = rows[list(_KEYS)].drop_duplicates().sort_values(list(_KEYS))
        self._cells = np.zeros((len(heads), BLOCKS, len(measures)))
        block = rows["block"].to_numpy(dtype=np.int64)
        self._cells[place, block] = rows[measures].to_numpy(dtype=np.float64)
        self._measure = {name: number for number, name in enumerate(measures)}
        self._day = heads["day"].to_numpy(dtype=np.int64)
        # Slice and key -> their rows: rates are asked for by the thousand.
        self._rows: dict[tuple[str, str], list[int]] = {}
        for row, key in enumerate(zip(heads["slice"], heads["key"], strict=True)):
            self._rows.setdefault(key, []).append(row)
        self._keep_days_with_both_sides()

    def _keep_days_with_both_sides(self) -> None:
        """A season before there was a holdout would count as what the lists did."""
        sides = [("holdout", one) for one in (REST, HOLDOUT)]
        days = [{int(self._day[row]) for row in self._rows.get(side, ())} for side in sides]
        for side in sides:
            rows = self._rows.pop(side, [])
            if kept := [row for row in rows if int(self._day[row]) in set.intersection(*days)]:
                self._rows[side] = kept

    def keys(self, name: str) -> list[str]:
        """The keys of a slice, those with the most lists first."""
        place = self._measure["lists"]
        lists = {
            key: self._cells[rows, :, place].sum()
            for (of, key), rows in self._rows.items()
            if of == name
        }
        return sorted(lists, key=lambda key: (-lists[key], key))

    def sums(self, metric: Metric, name: str = "total", key: str = "", day: int = -1) -> Sums:
        """By block, over all days that are not silent, or of that at the place `day`."""
        rows = [row for row in self._rows.get((name, key), []) if self._heard[self._day[row]]]
        if day >= 0:
            rows = [row for row in rows if self._day[row] == day]
        counted = self._column(rows, metric.counted)
        return Sums(counted * metric.per, self._column(rows, metric.of))

    def total(self, measure: str, name: str = "total", key: str = "") -> float:
        """The sum of a measure over all days."""
        return float(self._column(self._rows.get((name, key), []), measure).sum())

    def rate(self, metric: Metric, name: str = "total", key: str = "", day: int = -1) -> Rate:
        return rate(*self.sums(metric, name, key, day))

    def uplifts(self) -> dict[str, Rate] | None:
        """What everybody else did, against the holdout; None without one."""
        if not {HOLDOUT, REST} <= set(self.keys("holdout")):
            return None
        sides = {
            name: [self.sums(METRICS[name], "holdout", key) for key in (REST, HOLDOUT)]
            for name in EARNED
        }
        return {name: uplift(*pair) for name, pair in sides.items()}

    def products(self) -> pd.DataFrame:
        """``shown`` and outcomes by product, over all days."""
        frames = [read_day(self._settings, day, "products") for day in self.days]
        return pd.concat(frames).groupby(schema.PRODUCT).sum() if frames else pd.DataFrame()

    def explored(self) -> pd.DataFrame:
        """``shown`` and ``clicks`` by product and position, of what was drawn."""
        keys = [schema.PRODUCT, POSITION]
        frames = [read_explored(self._settings, day) for day in self.days]
        table = pd.concat(frames) if frames else pd.DataFrame(columns=[*keys, "shown", "clicks"])
        return table.groupby(keys, as_index=False).sum()

    def by_position(self, name: str, measure: str) -> Float64Array:
        """``(positions, blocks)`` sums of a slice whose keys are positions."""
        found = [self.sums(Metric(measure, "items"), name, str(n)) for n in range(LAST_POSITION)]
        return np.array([sums.numerators for sums in found])

    def happened(self) -> dict[str, dict[str, int]]:
        """Fate -> kind -> how many events of the days."""
        found: dict[str, dict[str, int]] = {}
        for totals in self.totals.values():
            for fate, kinds in totals["happened"].items():
                for kind, count in kinds.items():
                    by_kind = found.setdefault(fate, {})
                    by_kind[kind] = by_kind.get(kind, 0) + count
        return found

    def robots(self) -> dict[str, int]:
        """Units (each day's), lists and outcomes that were left out."""
        every: list[Mapping[str, Any]] = [totals["robots"] for totals in self.totals.values()]
        return {name: sum(one[name] for one in every) for name in ("units", "lists", "outcomes")}

    def _column(self, rows: list[int], measure: str) -> Float64Array:
        column = self._cells[rows, :, self._measure[measure]].sum(axis=0)
        return np.asarray(column, dtype=np.float64)


_KEYS: Final = ("day", "slice", "key")
