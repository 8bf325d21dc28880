"""How one file of a shop would be read, before anything is refreshed with it."""

import dataclasses
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo

from recsys import schema
from recsys.config import load_config
from recsys.data.cleaning import RAW, REASON, CleanRows, Limits, clean_rows, settle_files
from recsys.data.config import DataConfig
from recsys.data.prices import HIGH_PRICE, LOW_PRICE
from recsys.data.products import clean_products
from recsys.data.reading import ROW, RawRows, choose_columns, file_columns, read_rows
from recsys.data.sources import Files, SourceConfig, load_source
from recsys.errors import SourceError
from recsys.settings import Settings

REVIEWS, PRODUCTS = "reviews", "products"
SHOWN: Final = 3
_FEW = 5
_LONGEST = 60  # characters of a text that is shown
_OLD, _STALE, _TODAY = timedelta(days=20 * 365), timedelta(days=30), timedelta(days=1)
_MOST = 0.5


@dataclasses.dataclass(frozen=True)
class Preview:
    """What a file is read as. `columns` are our name, the file's, its first texts, and what these
    are read as; `unused` the file's other columns. `refused` counts rows by reason,
    `first_refused` shows some with their number and text. `doubts` are sentences about what is read
    and whether it can be right."""

    kind: str
    columns: list[tuple[str, str, list[str], list[str]]]
    unused: list[str]
    rows: int
    accepted: int
    refused: dict[str, int]
    first_refused: list[tuple[int, str, str]]
    doubts: list[str]


def preview(settings: Settings, source: str, path: Path, now: datetime) -> Preview:
    """Read the file at `path` as the reviews of the `source`, or as its products if it has no
    columns of reviews. Raises `SourceError` if it is neither, and as `read_rows` does, and
    `ConfigError`."""
    config = load_source(settings, source)
    if path.exists() and not path.is_file():
        raise SourceError(f"{path}: expected a file: it is read more than once")
    zone, limits = ZoneInfo(config.timezone), _limits(settings, config, now)
    kind = _kind_of(path, config)
    if kind == REVIEWS:
        files = settle_files(path, config.reviews, limits)
        raw = read_rows(path, files.needed, files.optional, files)
        clean = clean_rows(raw, files.timestamp, limits)
        doubts = _doubts_of_times(clean, now, zone)
    else:
        raw = read_rows(path, config.products.needed, config.products.optional, config.products)
        clean = clean_products(raw, config.id_rules, config.products, zone)
        doubts = _doubts_of_prices(clean)
    described = config.reviews if kind == REVIEWS else config.products
    names = file_columns(path, described.needed, described)
    chosen = choose_columns(path, names, described.needed, described.optional)
    refused = clean.rejected[REASON].value_counts()
    return Preview(
        kind=kind,
        columns=[_shown(*pair, raw, clean, zone) for pair in chosen.items()],
        unused=[name for name in names if name not in chosen.values()],
        rows=clean.rows_read,
        accepted=len(clean.accepted),
        refused={str(reason): int(count) for reason, count in refused.items()},
        first_refused=[
            (int(row), str(reason), str(text)[:_LONGEST])
            for row, reason, text in clean.rejected[[ROW, REASON, RAW]].head(_FEW).to_numpy()
        ],
        doubts=doubts,
    )


def _limits(settings: Settings, config: SourceConfig, now: datetime) -> Limits:
    earliest = load_config(settings, DataConfig).earliest_time
    # Everything is looked at, whatever interval a refresh would read.
    return Limits(ZoneInfo(config.timezone), earliest, now + _TODAY, now, config.id_rules)


def _kind_of(path: Path, config: SourceConfig) -> str:
    problems = []
    kinds: dict[str, Files] = {REVIEWS: config.reviews, PRODUCTS: config.products}
    for kind, files in kinds.items():
        try:
            choose_columns(path, file_columns(path, files.needed, files), files.needed, {})
        except SourceError as error:
            problems.append(f"as {kind}: {error}")
        else:
            return kind
    raise SourceError("\n".join(problems))


def _shown(
    ours: str, theirs: str, raw: RawRows, clean: CleanRows, zone: ZoneInfo
) -> tuple[str, str, list[str], list[str]]:
    texts = [str(text)[:_LONGEST] for text in raw.table[ours][:SHOWN].to_pylist()]
    own = ours.split()[0]  # a time may stand in several columns
    if own not in clean.accepted:
        return own, theirs, texts, []
    values = clean.accepted[own].head(SHOWN)
    if own == schema.TIMESTAMP:
        values = values.dt.tz_convert(zone).dt.strftime("%Y-%m-%d %H:%M:%S %Z")
    return own, theirs, texts, [str(value)[:_LONGEST] for value in values]


def _doubts_of_times(clean: CleanRows, now: datetime, zone: ZoneInfo) -> list[str]:
    if not len(clean.accepted):
        return []
    times = clean.accepted[schema.TIMESTAMP]
    first, last = (moment.tz_convert(zone) for moment in (times.min(), times.max()))
    doubts = [f"reviews of {first:%Y-%m-%d} to {last:%Y-%m-%d}"]
    midnight = (times.dt.tz_convert(zone).dt.strftime("%H%M%S") == "000000").mean()
    if midnight > _MOST:
        doubts.append(f"{midnight:.0%} of the times are midnight: days without a time of day?")
    if (old := int((times < now - _OLD).sum())) > 0:
        doubts.append(f"{old:,} reviews are older than twenty years: is the format of time right?")
    if last < now - _STALE:
        doubts.append(f"the newest review is {(now - last).days} days old")
    return doubts


def _doubts_of_prices(clean: CleanRows) -> list[str]:
    prices = clean.accepted[schema.PRICE]
    read = prices.dropna()
    doubts = []
    if clean.unclear_prices:
        doubts.append(f"{clean.unclear_prices:,} prices are unclear and not read")
    if not len(read):
        return [*doubts, "no product has a price"]
    low, middle, high = (f"{read.quantile(share):,.0f}" for share in (0, 0.5, 1))
    doubts.append(f"prices from {low} to {high} dong, the median {middle}")
    odd = clean.accepted[(prices < LOW_PRICE) | (prices > HIGH_PRICE)]
    if len(odd):
        some = ", ".join(
            f"{row[schema.PRODUCT]} {row[schema.PRICE]:,.0f}"
            for row in odd.head(_FEW).to_dict("records")
        )
        bounds = f"below {LOW_PRICE:,} or above {HIGH_PRICE:,} dong"
        doubts.append(f"{len(odd):,} prices are {bounds}: {some}: in thousands, or not dong?")
    return doubts
