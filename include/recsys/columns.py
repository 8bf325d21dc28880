"""Whole columns of texts, ids and events, by Arrow's kernels: the same answers as `recsys.text`,
`recsys.ids` and `recsys.events` give for one. The service asks those about one at a time, and must
not carry Arrow."""

from collections.abc import Callable, Iterable, Mapping

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from recsys import events, ids, schema, text
from recsys.arrays import BoolArray, Float64Array

# As spreadsheets and Python write large numbers; an article number such as 12E5 has no sign.
_SCIENTIFIC = r"^\d([.,]\d+)?[eE]\+\d+$"
_USUAL_UUID = r"\1-\2-\3-\4-\5"
_NUMBER = r"^-?\d{1,400}([.,]\d{1,400})?([eE][+-]?\d{1,3})?$"

Fault = tuple[BoolArray, str]
"""Which rows are bad, and the reason; of several the first is named."""


def normalise_series(texts: pd.Series) -> pd.Series:
    """`normalise` for each text; missing ones become ``""``. Keeps index and name."""
    return _on_distinct(normalise_texts, texts)


def fold_series(texts: pd.Series) -> pd.Series:
    """`fold` for each text; missing ones become ``""``. Keeps index and name."""
    return _on_distinct(fold_texts, texts)


def normalise_texts(texts: pa.Array) -> pa.Array:
    """`normalise` of each text (large_string)."""
    texts = pc.replace_substring_regex(texts, f"[{text.INVISIBLE}]+", "")
    texts = _single_blanks(texts)
    texts = pc.replace_substring_regex(texts, "[ðɖ]", "đ")
    texts = pc.replace_substring_regex(texts, "[ÐƉ]", "Đ")
    texts = pc.utf8_normalize(texts, form="NFD")
    texts = pc.replace_substring_regex(texts, text.EARLY_TONE.pattern, text.MOVED_TONE)
    return pc.utf8_normalize(texts, form="NFC")


def fold_texts(texts: pa.Array) -> pa.Array:
    """`fold` of each text (large_string)."""
    texts = pc.utf8_normalize(normalise_texts(texts), form="NFKD")
    texts = pc.replace_substring_regex(texts, text.ACCENTS.pattern, "")
    texts = pc.replace_substring_regex(texts, "[đĐ]", "d")
    return pc.utf8_lower(_single_blanks(pc.utf8_normalize(texts, form="NFC")))


def normalise_ids(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """`normalise_id` of each text (large_string)."""
    column = pc.utf8_trim(column, characters=ids.BLANKS)
    is_ascii = pc.string_is_ascii(column)
    if not pc.all(is_ascii, min_count=0).as_py():
        column = _one_by_one(column, pc.invert(is_ascii))
    if contains_byte(column, ord("+")):
        column = _one_by_one(column, pc.match_substring_regex(column, _SCIENTIFIC))
    if contains_byte(column, ord(".")):
        column = pc.replace_substring_regex(column, ids.WHOLE_FLOAT, r"\1")
    return column


def which_are(column: pa.ChunkedArray, is_one: Callable[[str], bool]) -> pa.ChunkedArray:
    """Which of the ids (large_string, in whatever spelling) are such in their one spelling: each
    distinct one is asked about once. A missing one is nobody's."""
    distinct = pc.unique(column).drop_null()
    normal = normalise_ids(pa.chunked_array([distinct])).to_pylist()
    mask = pa.array([is_one(one) for one in normal], pa.bool_())
    return pc.is_in(column, value_set=distinct.filter(mask))


def id_faults(column: pa.ChunkedArray, what: str, rules: ids.IdRules | None = None) -> list[Fault]:
    """Which of the normalised ids name no `what`, and why; the first reason of an id counts. With
    `rules`, also which customers stand for many."""
    none = np.zeros(len(column), dtype=np.bool_)
    is_ascii = pc.all(pc.string_is_ascii(column), min_count=0).as_py()
    lower = pc.ascii_lower(column) if is_ascii else pc.utf8_lower(column)

    def named(names: Iterable[str]) -> BoolArray:
        return _mask(pc.is_in(lower, value_set=pa.array(sorted(names), lower.type)))

    placeholders = rules.lower_placeholders if rules is not None else frozenset()
    suspicious = named(placeholders.union(ids.MISSING)).any()
    if is_ascii:
        odd, length = pc.invert(pc.ascii_is_printable(column)), pc.binary_length(column)
    else:
        odd, length = pc.match_substring_regex(column, ids.ODD), pc.utf8_length(column)
    short = many = none
    if contains_byte(column, ord("+")):
        short = _mask(pc.match_substring_regex(column, _SCIENTIFIC))
    if rules is not None and contains_byte(column, ord(ids.MASKED[0])):
        many = _mask(pc.match_substring(column, ids.MASKED))
    return [
        (named(ids.MISSING) if suspicious else none, f"there is no {what}"),
        (_mask(pc.or_(odd, pc.greater(length, ids.MAX_LENGTH))), f"the {what} is not an id"),
        (short, f"the {what} is a number that a spreadsheet has cut short"),
        (many | named(placeholders) if suspicious else many, ids.STANDS_FOR_MANY),
    ]


def rename_ids(column: pa.ChunkedArray, aliases: Mapping[str, str]) -> pa.ChunkedArray:
    """The ids with those that are keys of `aliases` replaced."""
    place = pc.index_in(column, value_set=pa.array(list(aliases), column.type))
    renamed = pc.take(pa.array(list(aliases.values()), column.type), place)
    return pc.if_else(pc.is_valid(place), renamed, column)


def read_events(
    table: pa.Table, rules: ids.IdRules
) -> tuple[dict[str, pa.ChunkedArray | Float64Array], list[Fault]]:
    """`recsys.events.read_event` of each row: KIND, USER, PRODUCT, SESSION, RECOMMENDATION and
    PLACEMENT (large_string), QUANTITY and VALUE (float64); and what is wrong, the first reason
    first. Columns of `table` are text, QUANTITY and VALUE may be float64; all but PRODUCT may be
    missing."""
    kind = _trimmed(table, schema.KIND)
    kind = pc.if_else(pc.equal(kind, ""), schema.Kind.RATING.value, kind)
    session, of_many, session_faults = _sessions(table, rules)
    user, user_faults = _customers(table, kind, session, of_many, rules)
    product = normalise_ids(table[schema.PRODUCT])
    recommendation = _recommendations(table)
    placement = _present(table, schema.PLACEMENT)
    quantity, value = _numbers(table, schema.QUANTITY, 1.0), _numbers(table, schema.VALUE, np.nan)
    with np.errstate(invalid="ignore"):
        pieces = (quantity > 0) & (quantity <= events.MOST_PIECES)
        worth = (value >= 0) & (value < events.VALUE_LIMIT)
    named = _mask(pc.match_substring_regex(placement, events.PLACEMENT))
    faults = [
        (~_mask(pc.is_in(kind, value_set=pa.array(events.KINDS, kind.type))), events.NO_KIND),
        *user_faults,
        *id_faults(product, "product"),
        *session_faults,
        (~pieces, events.BAD_QUANTITY),
        (~(worth | np.isnan(value)), events.BAD_VALUE),
        (~named & _mask(pc.not_equal(placement, "")), events.BAD_PLACEMENT),
    ]
    product = rename_ids(product, rules.aliases) if rules.aliases else product
    texts = {schema.KIND: kind, schema.USER: user, schema.PRODUCT: product}
    texts |= {schema.SESSION: session, schema.RECOMMENDATION: recommendation}
    texts |= {schema.PLACEMENT: placement}
    return {**texts, schema.QUANTITY: quantity, schema.VALUE: value}, faults


def contains_byte(column: pa.ChunkedArray, byte: int) -> bool:
    """Whether a byte stands anywhere in a column of text; much faster than looking row by row."""
    for chunk in column.chunks:
        if len(chunk) and (buffer := chunk.buffers()[2]) is not None:
            first, last = chunk.offset, chunk.offset + len(chunk)
            ends = np.frombuffer(chunk.buffers()[1], dtype=np.int64)
            if (np.frombuffer(buffer, dtype=np.uint8)[ends[first] : ends[last]] == byte).any():
                return True
    return False


def _sessions(
    table: pa.Table, rules: ids.IdRules
) -> tuple[pa.ChunkedArray, BoolArray, list[Fault]]:
    """The session of each event, "" where it is none or stands for many; where it does that; and
    what is wrong with the others."""
    session = normalise_ids(_trimmed(table, schema.SESSION))
    missing, odd, short, many = id_faults(session, "session", rules)
    none = missing[0] | many[0]
    found = pc.if_else(pa.chunked_array([pa.array(none)]), "", session)
    return found, many[0], [(bad & ~none, why) for bad, why in (odd, short)]


def _customers(
    table: pa.Table,
    kind: pa.ChunkedArray,
    session: pa.ChunkedArray,
    of_many: BoolArray,
    rules: ids.IdRules,
) -> tuple[pa.ChunkedArray, list[Fault]]:
    """The customer of each event, "" for guests, who have a session; and why there is none. The
    session `of_many` is no one's."""
    user = normalise_ids(_trimmed(table, schema.USER))
    missing, odd, short, many = id_faults(user, "user", rules)
    is_signal = _mask(pc.not_equal(kind, schema.Kind.RATING.value))
    may_be_guest = is_signal & (missing[0] | (many[0] & ~odd[0] & ~short[0]))
    guest = may_be_guest & _mask(pc.not_equal(session, ""))
    return pc.if_else(pa.chunked_array([pa.array(guest)]), "", user), [
        (missing[0] & ~is_signal, missing[1]),
        (missing[0] & ~guest & of_many, ids.NOBODY_BUT_MANY),
        (missing[0] & ~guest, events.NOBODY),
        odd,
        short,
        (many[0] & ~guest, many[1]),
    ]


def _recommendations(table: pa.Table) -> pa.ChunkedArray:
    """The served list of each event."""
    given = _present(table, schema.RECOMMENDATION)
    usual = pc.replace_substring_regex(pc.ascii_lower(given), events.UUID, _USUAL_UUID)
    short = pc.utf8_slice_codeunits(given, 0, events.LONGEST_RECOMMENDATION)
    return pc.if_else(pc.match_substring_regex(given, f"(?i){events.UUID}"), usual, short)


def _numbers(table: pa.Table, name: str, missing: float) -> Float64Array:
    """A column of numbers; infinite where there is something else than a number."""
    if name not in table.column_names:
        return np.full(table.num_rows, missing)
    if pa.types.is_floating(table[name].type):
        numbers = table[name].to_numpy()
        return np.where(np.isnan(numbers), missing, numbers)
    column = _present(table, name)
    readable = pc.match_substring_regex(column, _NUMBER)
    points = pc.replace_substring(pc.if_else(readable, column, "inf"), ",", ".")
    numbers = points.cast(pa.float64()).to_numpy()
    return np.where(_mask(pc.equal(column, "")), missing, numbers)


def _trimmed(table: pa.Table, name: str) -> pa.ChunkedArray:
    """A column of text without blanks around it; empty texts where `table` has none."""
    if name not in table.column_names:
        return pa.chunked_array([pa.array([""] * table.num_rows, pa.large_string())])
    return pc.utf8_trim(table[name], characters=ids.BLANKS)


def _present(table: pa.Table, name: str) -> pa.ChunkedArray:
    """The same, and nothing where a program has written that there is nothing."""
    column = _trimmed(table, name)
    return pc.if_else(_is_missing(column), "", column)


def _is_missing(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.is_in(pc.ascii_lower(column), value_set=pa.array(ids.MISSING, column.type))


def _single_blanks(texts: pa.Array) -> pa.Array:
    texts = pc.replace_substring_regex(texts, r"[\x00-\x20\x7f-\x{a0}\p{Z}]+", " ")
    return pc.utf8_trim(texts, " ")


def _on_distinct(transform: Callable[[pa.Array], pa.Array], texts: pd.Series) -> pd.Series:
    """`transform` of each text, computed once for each distinct one: reviews are often copies."""
    codes, distinct = pd.factorize(texts.astype(object).fillna(""))
    try:
        array = pa.array(distinct.to_numpy(dtype=object), type=pa.large_string())
    except UnicodeEncodeError:  # lone surrogates, from broken JSON escapes
        array = pa.array(distinct.map(text.normalise), type=pa.large_string())
    changed = transform(array).take(pa.array(codes))
    return pd.Series(changed, index=texts.index, name=texts.name, dtype="str")


def _one_by_one(column: pa.ChunkedArray, chosen: pa.ChunkedArray) -> pa.ChunkedArray:
    """`column` with `normalise_id` of each distinct text where `chosen` holds."""
    encoded = column.filter(chosen).combine_chunks().dictionary_encode()
    distinct = [ids.normalise_id(one) for one in encoded.dictionary.to_pylist()]
    done = pa.array(distinct, column.type).take(encoded.indices)
    return pa.chunked_array(
        [pc.replace_with_mask(column.combine_chunks(), chosen.combine_chunks(), done)]
    )


def _mask(column: pa.ChunkedArray) -> BoolArray:
    return np.asarray(column.to_numpy(), dtype=np.bool_)
