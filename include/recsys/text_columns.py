"""`recsys.text` for columns: the same results, by Arrow's kernels.

Apart from it, because a service folds the words of a query and must not carry Arrow for that.
"""

from collections.abc import Callable

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from recsys.text import ACCENTS, EARLY_TONE, INVISIBLE, MOVED_TONE, normalise


def normalise_series(texts: pd.Series) -> pd.Series:
    """`normalise` for each text; missing ones become ``""``. Keeps index and name."""
    return _on_distinct(_normalise_array, texts)


def fold_series(texts: pd.Series) -> pd.Series:
    """`fold` for each text; missing ones become ``""``. Keeps index and name."""
    return _on_distinct(_fold_array, texts)


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
