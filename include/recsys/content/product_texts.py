"""The text of each product that is embedded, and which of these texts are new.

A text is chosen fields without boilerplate; it is decided here what a run has to encode, before
any model is touched."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from recsys.arrays import BoolArray, Int64Array
from recsys.columns import normalise_series
from recsys.content import CATALOG_STATIC, ContentConfig
from recsys.content.embeddings import EmbeddingSet
from recsys.content.static_encoder import DIMENSIONS, FIT_PRODUCTS, VOCABULARY
from recsys.errors import InputError
from recsys.schema import DESCRIPTION, PRODUCT, PRODUCT_NAME

BOILERPLATE_SHARE = 0.2
"""A sentence that stands in more of all descriptions says nothing about a product, such as the
shop's notice about invoices."""
MIN_BOILERPLATE_PRODUCTS = 20
"""What stands in fewer descriptions may be a line of siblings, and is kept."""
MAX_CHARACTERS = 1_000
"""A product's text is cut off here."""
NAME_REPEATS = 2
"""catalog-static is told the name so many times: it says more than any other sentence."""
REFIT_SHARE = 0.2
"""The model is fitted again when more of the products are new or changed since the last fit."""

# Raised when the same configuration gives another static model; changed texts have other hashes.
_RECIPE_VERSION = 1
# Products whose texts are worked on at once: rewriting a text takes ten times its size.
_BLOCK = 10_000

_SENTENCE_END = r"[.!?…]*\s*[\r\n]+\s*|[.!?…]+(?:\s+|$)"


@dataclass(frozen=True)
class TextWork:
    """Texts of all products, and which of them are new."""

    reason: str | None  # why everything is done afresh, None if the previous set is carried on
    product_ids: list[str]
    texts: pd.Series
    hashes: list[str]
    previous_rows: Int64Array  # row of the previous set with the same text, -1 where there is none
    fields: list[str]
    boilerplate: list[str]
    recipe: str
    since_fit: int = 0
    """Products that were encoded since model and boilerplate were learned, this run's included."""
    base: EmbeddingSet | None = None
    """The previous set, if it is carried on."""

    @property
    def without_text(self) -> int:
        return self.hashes.count("")

    @property
    def new(self) -> BoolArray:
        """``(products,)`` whose text has to be encoded."""
        return (self.previous_rows < 0) & (np.array(self.hashes, dtype=object) != "")

    @property
    def is_done(self) -> bool:
        """The previous set is the answer already."""
        if self.base is None or self.base.product_ids != self.product_ids:
            return False
        return self.base.text_hashes() == self.hashes


def recipe_of(config: ContentConfig, fields: Sequence[str], model: str) -> str:
    """A digest of all that shapes texts and vectors; other digest, other space."""
    made_by = config.model.model_dump(exclude={"download", "fallback"})
    if model == CATALOG_STATIC:
        made_by = {"name": model, "dimensions": DIMENSIONS, "vocabulary": VOCABULARY}
        made_by |= {"fit_products": FIT_PRODUCTS, "name_repeats": NAME_REPEATS}
    content = {
        "version": _RECIPE_VERSION,
        "fields": list(fields),
        "boilerplate_share": BOILERPLATE_SHARE,
        "max_characters": MAX_CHARACTERS,
        "model": made_by,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]


def find_work(
    products: pd.DataFrame,
    config: ContentConfig,
    model: str,
    previous: EmbeddingSet | None,
    *,
    force: bool,
) -> TextWork:
    """What `model` has to encode of `products`, given the previous set."""
    fields = used_fields(products, config.text_fields)
    recipe = recipe_of(config, fields, model)
    blocks = [products.iloc[at : at + _BLOCK] for at in range(0, max(len(products), 1), _BLOCK)]
    told = DESCRIPTION in fields
    sentences = [split_sentences(block[DESCRIPTION]) if told else None for block in blocks]
    repeats = NAME_REPEATS if model == CATALOG_STATIC else 1

    def write(boilerplate: list[str], reason: str | None) -> TextWork:
        texts = pd.concat(
            product_texts(
                block,
                fields,
                boilerplate,
                max_characters=MAX_CHARACTERS,
                name_repeats=repeats,
                sentences=found,
            )
            for block, found in zip(blocks, sentences, strict=True)
        )
        ids = products[PRODUCT].astype("str").tolist()
        nothing = np.full(len(products), -1, dtype=np.int64)
        return TextWork(reason, ids, texts, hash_texts(texts), nothing, fields, boilerplate, recipe)

    reason = _reason(previous, recipe, force=force)
    if reason is None and previous is not None:
        work = write(previous.manifest["boilerplate"], None)
        known = pd.Series(previous.text_hashes(), dtype="str").drop_duplicates()
        rows = pd.Index(known).get_indexer(pd.Index(work.hashes, dtype="str"))
        rows = np.where(rows >= 0, known.index.to_numpy()[rows], -1).astype(np.int64)
        work = replace(work, previous_rows=rows)
        since = int(previous.manifest["since_fit"]) + int(work.new.sum())
        if since <= REFIT_SHARE * len(products):
            return replace(work, since_fit=since, base=previous)
        reason = f"{since} of {len(products)} products are new since the last fit"
    boilerplate = find_boilerplate(pa.concat_arrays(sentences), BOILERPLATE_SHARE) if told else []
    return write(boilerplate, reason)


def _reason(previous: EmbeddingSet | None, recipe: str, *, force: bool) -> str | None:
    if force:
        return "forced"
    if previous is None:
        return "no previous set"
    changed = previous.manifest["recipe"] != recipe
    return "the model or the texts' settings changed" if changed else None


def find_boilerplate(sentences: pa.ListArray, share: float) -> list[str]:
    """Lines and sentences that stand in more than `share` of all non-empty descriptions.

    `sentences` are those of `split_sentences`. The answer is sorted; what is in it stands in
    `MIN_BOILERPLATE_PRODUCTS` descriptions at least."""
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
    """One text a product: its `fields`, one below the other, in normal form, on their index.

    Fields that are no columns of `products` are left out, and `boilerplate` is cut from the
    description, whose `split_sentences` can be given. The name is told `name_repeats` times; longer
    texts are cut off. ``""`` for a product without any text. Raises `InputError` if `products` has
    none of `fields`."""
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
        found = f"the products have none of {list(fields)}, only {list(products.columns)}"
        raise InputError(f"content.yaml: text_fields: {found}")
    return used


def hash_texts(texts: pd.Series) -> list[str]:
    """128 bits of SHA-256 of each text, hexadecimal; ``""`` for an empty text."""
    return [hashlib.sha256(text.encode("utf-8")).hexdigest()[:32] if text else "" for text in texts]


def split_sentences(descriptions: pd.Series) -> pa.ListArray:
    """The normalised, non-empty sentences and lines of each description, as lists of strings."""
    texts = pa.array(descriptions.astype(object).fillna("").astype("str"), type=pa.string())
    if isinstance(texts, pa.ChunkedArray):
        texts = texts.combine_chunks()
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
