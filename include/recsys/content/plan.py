"""What a run has to encode, decided before any model is touched."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
import pyarrow as pa

from recsys.arrays import BoolArray, Int64Array
from recsys.content.config import CATALOG_STATIC, ContentConfig
from recsys.content.embeddings import EmbeddingSet
from recsys.content.product_texts import (
    find_boilerplate,
    hash_texts,
    product_texts,
    split_sentences,
    used_fields,
)
from recsys.schema import DESCRIPTION, PRODUCT

# Raised whenever the same configuration gives other texts or another static model than before.
_RECIPE_VERSION = 1
# Products whose texts are worked on at once: rewriting a text takes ten times its size.
_BLOCK = 10_000


@dataclass(frozen=True)
class Plan:
    """Texts of all products, and which of them are new.

    Attributes
    ----------
    reason
        Why everything is done afresh, None if the previous set is carried on.
    texts, hashes
        One a product.
    previous_rows
        ``(products,)`` row of the previous set with the same text, -1 where there is none.
    since_fit
        Products that were encoded since model and boilerplate were learned, this run's included.
    """

    reason: str | None
    product_ids: list[str]
    texts: pd.Series
    hashes: list[str]
    previous_rows: Int64Array
    fields: list[str]
    boilerplate: list[str]
    recipe: str
    since_fit: int

    @property
    def without_text(self) -> int:
        return self.hashes.count("")

    @property
    def new(self) -> BoolArray:
        """``(products,)`` whose text has to be encoded."""
        return (self.previous_rows < 0) & (np.array(self.hashes, dtype=object) != "")

    def is_done(self, previous: EmbeddingSet | None) -> bool:
        """The previous set is the answer already."""
        return (
            self.reason is None
            and previous is not None
            and previous.product_ids == self.product_ids
            and previous.text_hashes() == self.hashes
        )


def recipe_of(config: ContentConfig, fields: Sequence[str], model: str) -> str:
    """A digest of all that shapes texts and vectors; other digest, other space."""
    if model == CATALOG_STATIC:
        made_by = {"name": model, **config.catalog_static.model_dump()}
    else:
        made_by = config.model.model_dump(exclude={"download", "fallback", "device", "batch_size"})
    content = {
        "version": _RECIPE_VERSION,
        "fields": list(fields),
        "boilerplate_share": config.boilerplate_share,
        "max_characters": config.max_characters,
        "model": made_by,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]


def make_plan(
    products: pd.DataFrame,
    config: ContentConfig,
    model: str,
    previous: EmbeddingSet | None,
    *,
    force: bool,
) -> Plan:
    """What `model` has to encode of `products`, given the previous set."""
    fields = used_fields(products, config.text_fields)
    recipe = recipe_of(config, fields, model)
    reason = _reason(previous, recipe, force=force)
    blocks = [products.iloc[at : at + _BLOCK] for at in range(0, max(len(products), 1), _BLOCK)]
    sentences = None
    if DESCRIPTION in fields:
        sentences = [split_sentences(block[DESCRIPTION]) for block in blocks]
    write = partial(_texts, blocks, config, fields, model, sentences)
    if reason is None and previous is not None:
        plan = _carry_on(products, write, fields, recipe, previous)
        if plan.since_fit <= config.refit_share * len(products):
            return plan
        reason = f"{plan.since_fit} of {len(products)} products are new since the last fit"
    boilerplate: list[str] = []
    if sentences is not None:
        boilerplate = find_boilerplate(pa.chunked_array(sentences), config.boilerplate_share)
    texts, hashes = write(boilerplate)
    ids = products[PRODUCT].astype("str").tolist()
    nothing = np.full(len(products), -1, dtype=np.int64)
    return Plan(reason, ids, texts, hashes, nothing, fields, boilerplate, recipe, 0)


def _carry_on(
    products: pd.DataFrame,
    write: Callable[[list[str]], tuple[pd.Series, list[str]]],
    fields: list[str],
    recipe: str,
    previous: EmbeddingSet,
) -> Plan:
    boilerplate = previous.metadata["boilerplate"]
    texts, hashes = write(boilerplate)
    known = pd.Series(previous.text_hashes(), dtype="str").drop_duplicates()
    rows = pd.Index(known).get_indexer(pd.Index(hashes, dtype="str"))
    rows = np.where(rows >= 0, known.index.to_numpy()[rows], -1).astype(np.int64)
    ids = products[PRODUCT].astype("str").tolist()
    plan = Plan(None, ids, texts, hashes, rows, fields, boilerplate, recipe, 0)
    since = int(previous.metadata["since_fit"]) + int(plan.new.sum())
    return Plan(None, ids, texts, hashes, rows, fields, boilerplate, recipe, since)


def _reason(previous: EmbeddingSet | None, recipe: str, *, force: bool) -> str | None:
    if force:
        return "forced"
    if previous is None:
        return "no previous set"
    if previous.metadata["recipe"] != recipe:
        return "the model or the texts' settings changed"
    return None


def _texts(
    blocks: Sequence[pd.DataFrame],
    config: ContentConfig,
    fields: list[str],
    model: str,
    sentences: Sequence[pa.ListArray] | None,
    boilerplate: list[str],
) -> tuple[pd.Series, list[str]]:
    texts = pd.concat(
        product_texts(
            block,
            fields,
            boilerplate,
            max_characters=config.max_characters,
            name_repeats=config.catalog_static.name_repeats if model == CATALOG_STATIC else 1,
            sentences=None if sentences is None else sentences[number],
        )
        for number, block in enumerate(blocks)
    )
    return texts, hash_texts(texts)
