"""The text of each product that is embedded: chosen fields, without boilerplate."""

import hashlib
from collections.abc import Sequence

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from recsys.errors import InputError
from recsys.schema import DESCRIPTION, PRODUCT_NAME
from recsys.text_columns import normalise_series

MIN_BOILERPLATE_PRODUCTS = 20
"""What stands in fewer descriptions may be a line of siblings, and is kept."""

_TAG = r"<[^<>]{1,200}>|&nbsp;"
_SENTENCE_END = r"[.!?…]*\s*[\r\n]+\s*|[.!?…]+(?:\s+|$)"


def find_boilerplate(sentences: pa.ListArray | pa.ChunkedArray, share: float) -> list[str]:
    """Lines and sentences that stand in more than `share` of all non-empty descriptions.

    `sentences` are those of `split_sentences`. The answer is sorted; what is in it stands in
    `MIN_BOILERPLATE_PRODUCTS` descriptions at least.
    """
    if isinstance(sentences, pa.ChunkedArray):
        sentences = sentences.combine_chunks()
    product = pc.list_parent_indices(sentences).to_numpy(zero_copy_only=False)
    encoded = sentences.flatten().dictionary_encode()
    distinct = max(len(encoded.dictionary), 1)
    pairs = pd.unique(product.astype(np.int64) * distinct + encoded.indices.to_numpy())
    counts = np.bincount(pairs % distinct, minlength=len(encoded.dictionary))
    least = max(share * len(pd.unique(product)), MIN_BOILERPLATE_PRODUCTS - 1)
    return sorted(encoded.dictionary.take(pa.array(np.flatnonzero(counts > least))).to_pylist())


def product_texts(
    products: pd.DataFrame,
    fields: Sequence[str],
    boilerplate: Sequence[str],
    *,
    max_characters: int,
    name_repeats: int = 1,
    sentences: pa.ListArray | None = None,
) -> pd.Series:
    """One text a product: its `fields`, one below the other, in normal form.

    Parameters
    ----------
    products
        One row a product; of `fields` those are used that are among its columns.
    boilerplate
        Sentences to cut from the description, as `find_boilerplate` gives them.
    max_characters
        Longer texts are cut off.
    name_repeats
        How many times the name is told.
    sentences
        `split_sentences` of the descriptions, if they are at hand.

    Returns
    -------
    Series of str on the index of `products`; ``""`` for a product without any text.

    Raises
    ------
    InputError
        If none of `fields` is a column of `products`.
    """
    used = used_fields(products, fields)
    parts = pd.DataFrame(index=products.index)
    for field in used:
        if field == DESCRIPTION:
            split = split_sentences(products[field]) if sentences is None else sentences
            parts[field] = _without(split, boilerplate).to_numpy()
        else:
            parts[field] = normalise_series(products[field])
    texts = pd.Series("", index=products.index, dtype="str")
    for field in used:
        for _ in range(name_repeats if field == PRODUCT_NAME else 1):
            texts = texts + "\n" + parts[field]
    texts = texts.str.replace(r"\n+", "\n", regex=True).str.strip("\n")
    return texts.str.slice(stop=max_characters).astype("str")


def used_fields(products: pd.DataFrame, fields: Sequence[str]) -> list[str]:
    """Those of `fields` that `products` has. Raises `InputError` if there are none."""
    used = [field for field in fields if field in products]
    if not used:
        raise InputError(
            f"content.yaml: text_fields: the products have none of {list(fields)}, "
            f"only {list(products.columns)}"
        )
    return used


def hash_texts(texts: pd.Series) -> list[str]:
    """128 bits of SHA-256 of each text, hexadecimal; ``""`` for an empty text."""
    return [hashlib.sha256(text.encode("utf-8")).hexdigest()[:32] if text else "" for text in texts]


def split_sentences(descriptions: pd.Series) -> pa.ListArray:
    """The normalised, non-empty sentences and lines of each description, as lists of strings."""
    texts = pa.array(descriptions.astype(object).fillna("").astype("str"), type=pa.string())
    if isinstance(texts, pa.ChunkedArray):
        texts = texts.combine_chunks()
    texts = pc.replace_substring_regex(texts, _TAG, "\n")
    split = pc.split_pattern_regex(texts, _SENTENCE_END)
    clean = normalise_series(pd.Series(split.flatten(), dtype="str"))
    return _keep(split, pa.array(clean, type=pa.string()), clean != "")


def _without(sentences: pa.ListArray, boilerplate: Sequence[str]) -> pd.Series:
    values = sentences.flatten()
    known = pc.is_in(values, pa.array(list(boilerplate), type=values.type))
    kept = _keep(sentences, values, ~known.to_pandas())
    return pd.Series(pc.binary_join(kept, "\n"), dtype="str")


def _keep(lists: pa.ListArray, values: pa.Array, kept: pd.Series) -> pa.ListArray:
    """`lists` with `values` for elements, of which only the `kept` ones stay."""
    before = pd.concat([pd.Series([0]), kept.astype("int64").cumsum()], ignore_index=True)
    offsets = before.to_numpy()[lists.offsets.to_numpy()]
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    mask = pa.array(kept.to_numpy(dtype=bool))
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values.filter(mask))
