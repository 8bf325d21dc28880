"""Whole columns of texts and ids, by Arrow's kernels: the same answers as `recsys.text` and
`recsys.ids` give for one. The service asks those about one at a time, and must not carry Arrow."""

from collections.abc import Callable, Iterable, Mapping

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from recsys import ids, text
from recsys.arrays import BoolArray

# As spreadsheets and Python write large numbers; an article number such as 12E5 has no sign.
_SCIENTIFIC = r"^\d([.,]\d+)?[eE]\+\d+$"


def normalise_series(texts: pd.Series) -> pd.Series:
    """`normalise` for each text; missing ones become ``""``. Keeps index and name."""
    return _on_distinct(_normalise_array, texts)


def fold_series(texts: pd.Series) -> pd.Series:
    """`fold` for each text; missing ones become ``""``. Keeps index and name."""
    return _on_distinct(_fold_array, texts)


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


def id_faults(
    column: pa.ChunkedArray, what: str, rules: ids.IdRules | None = None
) -> list[tuple[BoolArray, str]]:
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


def contains_byte(column: pa.ChunkedArray, byte: int) -> bool:
    """Whether a byte stands anywhere in a column of text; much faster than looking row by row."""
    for chunk in column.chunks:
        if len(chunk) and (buffer := chunk.buffers()[2]) is not None:
            first, last = chunk.offset, chunk.offset + len(chunk)
            ends = np.frombuffer(chunk.buffers()[1], dtype=np.int64)
            if (np.frombuffer(buffer, dtype=np.uint8)[ends[first] : ends[last]] == byte).any():
                return True
    return False


def _normalise_array(texts: pa.Array) -> pa.Array:
    texts = pc.replace_substring_regex(texts, f"[{text.INVISIBLE}]+", "")
    texts = _single_blanks(texts)
    texts = pc.replace_substring_regex(texts, "[ðɖ]", "đ")
    texts = pc.replace_substring_regex(texts, "[ÐƉ]", "Đ")
    texts = pc.utf8_normalize(texts, form="NFD")
    texts = pc.replace_substring_regex(texts, text.EARLY_TONE.pattern, text.MOVED_TONE)
    return pc.utf8_normalize(texts, form="NFC")


def _fold_array(texts: pa.Array) -> pa.Array:
    texts = pc.utf8_normalize(_normalise_array(texts), form="NFKD")
    texts = pc.replace_substring_regex(texts, text.ACCENTS.pattern, "")
    texts = pc.replace_substring_regex(texts, "[đĐ]", "d")
    return pc.utf8_lower(_single_blanks(pc.utf8_normalize(texts, form="NFC")))


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
