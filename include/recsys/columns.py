"""Whole columns of texts and ids, by Arrow's kernels: the same answers as `recsys.text` and
`recsys.ids` give for one. The service asks those about one at a time, and must not carry Arrow."""

from collections.abc import Callable, Iterable, Mapping

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from recsys.arrays import BoolArray
from recsys.ids import (
    BLANKS,
    MASKED,
    MAX_LENGTH,
    MISSING,
    ODD,
    STANDS_FOR_MANY,
    WHOLE_FLOAT,
    IdRules,
    normalise_id,
)
from recsys.text import ACCENTS, EARLY_TONE, INVISIBLE, MOVED_TONE, normalise

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
    ids = pc.utf8_trim(column, characters=BLANKS)
    is_ascii = pc.string_is_ascii(ids)
    if not pc.all(is_ascii, min_count=0).as_py():
        ids = _one_by_one(ids, pc.invert(is_ascii))
    if contains_byte(ids, ord("+")):
        ids = _one_by_one(ids, pc.match_substring_regex(ids, _SCIENTIFIC))
    if contains_byte(ids, ord(".")):
        ids = pc.replace_substring_regex(ids, WHOLE_FLOAT, r"\1")
    return ids


def id_faults(
    ids: pa.ChunkedArray, what: str, rules: IdRules | None = None
) -> list[tuple[BoolArray, str]]:
    """Which of the normalised `ids` name no `what`, and why; the first reason of an id counts. With
    `rules`, also which customers stand for many."""
    none = np.zeros(len(ids), dtype=np.bool_)
    is_ascii = pc.all(pc.string_is_ascii(ids), min_count=0).as_py()
    lower = pc.ascii_lower(ids) if is_ascii else pc.utf8_lower(ids)

    def named(names: Iterable[str]) -> BoolArray:
        return _mask(pc.is_in(lower, value_set=pa.array(sorted(names), lower.type)))

    placeholders = rules.lower_placeholders if rules is not None else frozenset()
    suspicious = named(placeholders.union(MISSING)).any()
    if is_ascii:
        odd, length = pc.invert(pc.ascii_is_printable(ids)), pc.binary_length(ids)
    else:
        odd, length = pc.match_substring_regex(ids, ODD), pc.utf8_length(ids)
    short = many = none
    if contains_byte(ids, ord("+")):
        short = _mask(pc.match_substring_regex(ids, _SCIENTIFIC))
    if rules is not None and contains_byte(ids, ord(MASKED[0])):
        many = _mask(pc.match_substring(ids, MASKED))
    return [
        (named(MISSING) if suspicious else none, f"there is no {what}"),
        (_mask(pc.or_(odd, pc.greater(length, MAX_LENGTH))), f"the {what} is not an id"),
        (short, f"the {what} is a number that a spreadsheet has cut short"),
        (many | named(placeholders) if suspicious else many, STANDS_FOR_MANY),
    ]


def rename_ids(ids: pa.ChunkedArray, aliases: Mapping[str, str]) -> pa.ChunkedArray:
    """`ids` with those that are keys of `aliases` replaced."""
    place = pc.index_in(ids, value_set=pa.array(list(aliases), ids.type))
    renamed = pc.take(pa.array(list(aliases.values()), ids.type), place)
    return pc.if_else(pc.is_valid(place), renamed, ids)


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
    texts = pc.replace_substring_regex(texts, f"[{INVISIBLE}]+", "")
    texts = _single_blanks(texts)
    texts = pc.replace_substring_regex(texts, "[ðɖ]", "đ")
    texts = pc.replace_substring_regex(texts, "[ÐƉ]", "Đ")
    texts = pc.utf8_normalize(texts, form="NFD")
    texts = pc.replace_substring_regex(texts, EARLY_TONE.pattern, MOVED_TONE)
    return pc.utf8_normalize(texts, form="NFC")


def _fold_array(texts: pa.Array) -> pa.Array:
    texts = pc.utf8_normalize(_normalise_array(texts), form="NFKD")
    texts = pc.replace_substring_regex(texts, ACCENTS.pattern, "")
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
        array = pa.array(distinct.map(normalise), type=pa.large_string())
    changed = transform(array).take(pa.array(codes))
    return pd.Series(changed, index=texts.index, name=texts.name, dtype="str")


def _one_by_one(ids: pa.ChunkedArray, chosen: pa.ChunkedArray) -> pa.ChunkedArray:
    """`ids` with `normalise_id` of each distinct text where `chosen` holds."""
    encoded = ids.filter(chosen).combine_chunks().dictionary_encode()
    distinct = [normalise_id(text) for text in encoded.dictionary.to_pylist()]
    done = pa.array(distinct, ids.type).take(encoded.indices)
    return pa.chunked_array(
        [pc.replace_with_mask(ids.combine_chunks(), chosen.combine_chunks(), done)]
    )


def _mask(column: pa.ChunkedArray) -> BoolArray:
    return np.asarray(column.to_numpy(), dtype=np.bool_)
