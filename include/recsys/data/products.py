"""From columns of text to the products of a catalogue: their texts and prices, and what the shop
says of their sale: how many are left, whether and from when on they are sold, and their tags."""

import contextlib
import json
from collections.abc import Iterable
from dataclasses import replace
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from recsys import schema
from recsys.arrays import BoolArray, Float32Array
from recsys.columns import fold_series, id_faults, normalise_ids, rename_ids
from recsys.data.cleaning import (
    CleanRows,
    Fault,
    column_text,
    columns_of,
    concatenate,
    parse_times,
    rejected_rows,
    without,
)
from recsys.data.keys import text_series
from recsys.data.prices import PriceFormat, parse_prices
from recsys.data.reading import RawRows, read_rows
from recsys.data.sources import ProductFiles, Source
from recsys.ids import BLANKS, MISSING, WHOLE_FLOAT, IdRules
from recsys.schema import Kind
from recsys.text import fold, without_markup

STATUS = "status"  # str, folded, "" when unknown
DISCONTINUED = "discontinued"
WHY_NOT = "not_for_sale"  # str, the reason, "" for what is sold
SOLD_OUT = "sold out"
GONE = "not in the catalogue"

SAID_OF_SALE = (schema.STOCK, schema.AVAILABLE_FROM, schema.TAGS)
"""What a version keeps of it."""

_OF_SALE = frozenset({schema.STOCK, STATUS, DISCONTINUED, schema.AVAILABLE_FROM, schema.TAGS})
_NO_STOCK = pa.array([*MISSING, "-"], pa.large_string())
_NO_DAY = "0000-00-00"  # as MySQL writes that there is none
_ADDRESS = r"https://\S{1,2000}"  # browsers show nothing else on the demo page
_BELOW_ZERO = r"[-\u2212]\s?\d"


def read_catalogue(source: Source) -> CleanRows:
    """All products of the source's files; of several rows of one product the last one counts.
    Raises `SourceError` as `read_rows` does."""
    files, zone = source.config.products, ZoneInfo(source.config.timezone)
    raws = (read_rows(path, files.needed, files.optional, files) for path in source.product_files)
    read = concatenate([clean_products(raw, source.config.id_rules, files, zone) for raw in raws])
    accepted = read.accepted.drop_duplicates(schema.PRODUCT, keep="last", ignore_index=True)
    return replace(read, accepted=accepted)


def clean_products(raw: RawRows, rules: IdRules, files: ProductFiles, zone: ZoneInfo) -> CleanRows:
    """Check every row of a catalogue: PRODUCT, its texts and PRICE, and those of STOCK, STATUS,
    AVAILABLE_FROM, TAGS and PICTURE that it names, with WHY_NOT if it names any of sale; ids, names
    must be there. Texts are as a browser shows them, without markup; times without an offset are
    those of `zone`. Rows under an id of before come first, so that those under today's count."""
    table = raw.table
    before = product = normalise_ids(table[schema.PRODUCT])
    faults = id_faults(product, "product")
    if rules.aliases:
        product = rename_ids(product, rules.aliases)
    name = _shown_text(table, schema.PRODUCT_NAME)
    faults.append((name.str.lower().isin(MISSING).to_numpy(), "there is no product name"))
    accepted = pd.DataFrame({schema.PRODUCT: text_series(product), schema.PRODUCT_NAME: name})
    for text in (schema.BRAND, schema.CATEGORY, schema.DESCRIPTION):
        accepted[text] = _shown_text(table, text)
    prices, unclear = parse_prices(
        text_series(column_text(table, schema.PRICE)), files.price_format
    )
    accepted[schema.PRICE] = prices
    if schema.PICTURE in files.optional:
        addresses = text_series(pc.utf8_trim(column_text(table, schema.PICTURE), BLANKS))
        accepted[schema.PICTURE] = addresses.where(addresses.str.fullmatch(_ADDRESS), "")
    faults += _add_what_is_said_of_sale(accepted, table, files, zone)
    accepted = accepted[without(faults)]
    if rules.aliases:
        renamed = pc.not_equal(before, product).to_numpy()[accepted.index]
        accepted = accepted.iloc[np.argsort(~renamed, kind="stable")]
    accepted, columns = accepted.reset_index(drop=True), columns_of(raw)
    rejected, _ = rejected_rows(raw, faults)
    return CleanRows(accepted, rejected, 0, columns=columns, unclear_prices=unclear)


def for_sale(catalogue: pd.DataFrame) -> pd.DataFrame:
    """The rows of a catalogue that may be recommended, whatever the clock says."""
    return catalogue[catalogue[WHY_NOT] == ""] if WHY_NOT in catalogue else catalogue


def sale_statistics(catalogue: pd.DataFrame, products: int) -> dict[str, dict[str, int]]:
    """How many of the `products` of a version are not for sale, by reason, and how many of the
    `catalogue` have each status; nothing where the shop says nothing of it."""
    if WHY_NOT not in catalogue:
        return {}
    reasons = catalogue.loc[catalogue[WHY_NOT] != "", WHY_NOT].value_counts()
    found = {str(reason): int(count) for reason, count in sorted(reasons.items())}
    gone = products - len(catalogue)
    counts = {"products_not_for_sale": {**({GONE: gone} if gone else {}), **found}}
    if STATUS in catalogue:
        statuses = catalogue[STATUS].value_counts()
        counts["products_by_status"] = {str(s): int(n) for s, n in sorted(statuses.items())}
    return counts


def add_since(
    products: pd.DataFrame, interactions: pd.DataFrame | pa.Table, signals: pd.DataFrame | None
) -> pd.DataFrame:
    """`products` with SINCE, where it has one of the columns that a shop may leave out: its
    AVAILABLE_FROM, else the time of the first of the `interactions` and of the purchases."""
    if not any(name in products for name in SAID_OF_SALE):
        return products
    columns = [schema.PRODUCT, schema.TIMESTAMP]
    first = _first_times(interactions, columns)
    if signals is not None:
        bought = signals.loc[signals[schema.KIND] == Kind.PURCHASE.value, columns]
        first = pd.concat([first, _first_times(bought, columns)]).groupby(level=0).min()
    since = products[schema.PRODUCT].map(first).astype(first.dtype)
    if schema.AVAILABLE_FROM in products:
        since = products[schema.AVAILABLE_FROM].fillna(since)
    return products.assign(**{schema.SINCE: since})


def _first_times(rows: pd.DataFrame | pa.Table, columns: list[str]) -> pd.Series:
    if isinstance(rows, pd.DataFrame):
        rows = pa.Table.from_pandas(rows[columns], preserve_index=False)
    found = rows.select(columns).group_by(columns[0]).aggregate([(columns[1], "min")])
    names = found[columns[0]].to_pandas().astype("str")
    times: pd.Series = found[f"{columns[1]}_min"].to_pandas().astype("datetime64[us, UTC]")
    return pd.Series(times.array, index=pd.Index(names))


def _add_what_is_said_of_sale(
    accepted: pd.DataFrame, table: pa.Table, files: ProductFiles, zone: ZoneInfo
) -> list[Fault]:
    said = _OF_SALE.intersection(files.optional)
    if not said:
        return []
    faults: list[Fault] = []
    reasons: list[tuple[BoolArray, pd.Series | str]] = []
    if schema.STOCK in said:
        stock, unclear = _stock(table, files)
        accepted[schema.STOCK] = stock
        faults.append((unclear, "the stock is not a number"))
        reasons.append((stock <= 0, SOLD_OUT))
    if STATUS in said:
        accepted[STATUS] = status = _folded(table, STATUS)
        off = status.isin(files.not_for_sale.texts_of_status).to_numpy()
        reasons.append((off, f"{STATUS}: " + status))
    if DISCONTINUED in said:
        flags = _folded(table, DISCONTINUED)
        reasons.append(
            (flags.isin(files.not_for_sale.texts_of_discontinued).to_numpy(), DISCONTINUED)
        )
    if schema.AVAILABLE_FROM in said:
        texts = text_series(pc.utf8_trim(column_text(table, schema.AVAILABLE_FROM), BLANKS))
        accepted[schema.AVAILABLE_FROM] = times = parse_times(
            texts, files.available_from_formats, zone
        )
        none = texts.str.lower().isin(MISSING) | texts.str.startswith(_NO_DAY)
        unread = (times.isna() & ~none).to_numpy()
        faults.append((unread, "the time from which it is available cannot be read"))
    if schema.TAGS in said:
        accepted[schema.TAGS] = _tags(table, files.tag_separator)
    accepted[WHY_NOT] = ""
    for off, reason in reasons:  # of several the last one counts
        accepted[WHY_NOT] = accepted[WHY_NOT].where(~off, reason)
    accepted[WHY_NOT] = accepted[WHY_NOT].astype("str")
    return faults


def _stock(table: pa.Table, files: ProductFiles) -> tuple[Float32Array, BoolArray]:
    """Pieces of each row, NaN where the file says nothing; and where it says something else."""
    column = pc.utf8_trim(column_text(table, schema.STOCK), BLANKS)
    texts = text_series(column)
    texts = texts.mask(texts.str.match(_BELOW_ZERO), "0")  # sold before it came
    numbers, _ = parse_prices(texts, PriceFormat(decimal=files.decimal, thousands=files.thousands))
    given = ~pc.is_in(pc.utf8_lower(column), value_set=_NO_STOCK).to_numpy()
    return numbers.astype(np.float32), np.isnan(numbers) & given


def _folded(table: pa.Table, name: str) -> pd.Series:
    """Texts of a column without case and accents; whole numbers without decimals, "" for none."""
    column = pc.utf8_trim(column_text(table, name), BLANKS)
    texts = fold_series(text_series(pc.replace_substring_regex(column, WHOLE_FLOAT, r"\1")))
    return texts.mask(texts.isin(MISSING), "")


def _tags(table: pa.Table, separator: str) -> pd.Series:
    """Folded names of each row, with line breaks between them."""
    codes, distinct = pd.factorize(text_series(column_text(table, schema.TAGS)))
    done = pa.array([_split_tags(text, separator) for text in distinct], pa.large_string())
    return text_series(done.take(pa.array(codes)))


def _split_tags(text: str, separator: str) -> str:
    names: Iterable[object] = text.split(separator)
    if text.startswith("["):  # of JSON lines
        with contextlib.suppress(ValueError, RecursionError):
            names = json.loads(text)
    tags = (fold(str(name)) for name in names)
    return "\n".join(dict.fromkeys(tag for tag in tags if tag not in MISSING))


def _shown_text(table: pa.Table, name: str) -> pd.Series:
    """A column of text without markup and blanks around it."""
    column = pc.utf8_trim_whitespace(column_text(table, name))
    texts = text_series(column)
    marked = pc.match_substring_regex(column, "[<&]|;base64,").to_numpy()
    shown = texts[marked].map(without_markup)
    # Only a description has lines.
    texts[marked] = shown if name == schema.DESCRIPTION else shown.str.replace("\n", " ")
    return texts
