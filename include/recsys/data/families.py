"""Which listings are one product: sizes, counts, bundles and shades share a ``family_id``.

Two kinds of evidence are joined transitively: **names** that say the same, in whatever word order,
once size, count, bundle, packing and shade are left out; and **shared review events**, as shops
show one review on the pages of all variants of a product.
"""

import re
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from recsys.columns import fold_series
from recsys.data.keys import run_starts
from recsys.schema import BRAND, FAMILY, PRODUCT, PRODUCT_NAME

# (2, pairs) product numbers.
Pairs = NDArray[np.integer]

# Two listings are siblings when they share at least half of all their review events: copies stand
# on all variants' pages, so that true siblings share nearly all (median .94 on Hasaki), while
# products that a customer happened to review in one go share next to none (below .05).
MIN_JACCARD = 0.5
# So few shared events may be chance: the names must then have much in common as well.
CHANCE_EVENTS = 2
MIN_NAME_OVERLAP = 0.4
# A "review" on more pages than this is spam or a fault, and says nothing about products.
MAX_EVENT_PRODUCTS = 100
# What is left of a name must still name something: "Combo 2" alone does not.
MIN_NAME_TOKENS = 2

_NUMBER = r"\d+(?:[.,]\d+)?"
_UNIT = r"(?:ml|lit|l|gram|gr|g|kg|mg|oz|cm)"
_PIECE = r"(?:mieng|to|mon|vien|goi|chai|lo|tuyp|hop|hu|tui|cai|chiec|cuon|cap|thoi|cay|que|m|pcs?)"
_SIZE = rf"(?:\d+ ?x ?)?{_NUMBER}(?: ?[+-] ?{_NUMBER})? ?{_UNIT}(?: ?x ?\d+)?(?: ?/ ?{_PIECE})?"
_COUNT = rf"\d+(?: ?[+-] ?\d+)? ?{_PIECE}(?: ?/ ?{_PIECE})?"
# All of these read folded names.
_VARIANT = re.compile(
    r"\[[^\]]*\]|\([^)]*\)"  # [Mini], (Mới), (Tím), (15x20cm)
    r"|^ *(?:combo|bo|set|pack|loc|kit|hop|tui)\b(?: \d+\b)?"
    rf"|\b{_SIZE}\b|\b{_COUNT}\b|\bx ?\d+\b(?! \w+ )"
    r"|\bspf ?\d+\+*|\bpa\+*(?!\w)"
    r"|\b(?:no|so)[. ]{1,2}\d+\b|\b(?:tone|tong|shade) ?\d+\b"
    r"|\b(?:big size|phien ban moi|ban moi|mini)\b(?: \d{4})?"
)
# "đều màu da" is an effect, not a shade.
_COLOUR = re.compile(r"\bmau (?!da\b)[^,&+]{1,25}$")
# Of make-up, what follows a shade code is the shade's name; elsewhere B5 or X20 is an ingredient.
_MAKE_UP = (
    r"^ *(?:son (?!duong)|ma hong|phan |cushion|kem nen|kem che|che khuyet|but ke|ke |chi ke)"
)
_SHADE = re.compile(r"(?<=\w) #?(?:[a-z]{1,2}\d{1,3}|0\d)\b.*$")
_NUMBERED = re.compile(r"#\w+")
_FILLERS = (
    *("va", "cho", "danh", "giup", "ho", "tro", "lam", "voi", "tu", "cua"),
    *("san", "pham", "hop", "tui", "hu", "chai", "lo", "tuyp", "moi"),
)


@dataclass(frozen=True)
class SharedEvents:
    """How many review events stand at the pages of products: ``(products,)`` `counts` of each, and
    in `pairs`, ``(products, products)``, those that two of them share, above the diagonal."""

    counts: NDArray[np.int64]
    pairs: sparse.csr_array


def assign_families(products: pd.DataFrame, shared: SharedEvents | None = None) -> pd.Series:
    """The family of each listing, named after its first listing (shortest, then smallest id). A str
    Series named ``family_id`` on the index of `products`, which has ``product_id``, each once,
    ``product_name`` and, if there is one, ``brand``; the order of the rows does not matter.
    `shared` is what `shared_events` says of the rows of `products`. None: names only."""
    words = _name_words(products)
    links = [words.same(), *([] if shared is None else [_siblings(shared, words)])]
    first, second = np.concatenate(links, axis=1)
    shape = (len(products), len(products))
    graph = sparse.coo_array((np.ones(len(first)), (first, second)), shape=shape)
    _, component = connected_components(graph, directed=False)
    ids = products[PRODUCT].astype("str").reset_index(drop=True)
    listings = pd.DataFrame({"id": ids, "length": ids.str.len(), "of": component})
    ordered = listings.sort_values(["length", "id"])
    family = ordered.groupby("of")["id"].transform("first").sort_index().to_numpy(dtype=object)
    return pd.Series(family, index=products.index, name=FAMILY, dtype="str")


def base_names(names: pd.Series) -> pd.Series:
    """Folded names without size, count, bundle, packing and shade.

    >>> base_names(pd.Series(["Combo 2 Nước Tẩy Trang L'Oreal Căng Mịn Da 400ml"])).item()
    "nuoc tay trang l'oreal cang min da"
    """
    base = fold_series(names).str.replace(_VARIANT, " ", regex=True).str.strip()
    base = base.str.replace(_COLOUR, " ", regex=True)
    make_up = base.str.contains(_MAKE_UP, regex=True)
    base = base.where(~make_up, base.str.replace(_SHADE, " ", regex=True))
    return base.str.replace(_NUMBERED, " ", regex=True).str.split().str.join(" ")


@dataclass(frozen=True)
class _NameWords:
    """Which words stand in whose name and brand: ``(products, words)`` 0/1; a hash of each word."""

    has: sparse.csr_array
    hashes: NDArray[np.uint64]

    def same(self) -> Pairs:
        """Products whose names are the same set of words, as a chain of pairs."""
        keys = self.has.astype(np.uint64) @ self.hashes
        named = np.flatnonzero(self.has.sum(axis=1) >= MIN_NAME_TOKENS)
        ordered = named[np.argsort(keys[named], kind="stable")]
        equal = keys[ordered[1:]] == keys[ordered[:-1]]
        return np.stack([ordered[:-1][equal], ordered[1:][equal]])

    def overlap(self, pairs: Pairs) -> NDArray[np.float64]:
        """Words in common, as a share of the shorter name, of each pair."""
        first, second = self.has[pairs[0]], self.has[pairs[1]]
        common = first.multiply(second).sum(axis=1)
        shorter = np.minimum(first.sum(axis=1), second.sum(axis=1))
        return common / np.maximum(shorter, 1)


def _name_words(products: pd.DataFrame) -> _NameWords:
    texts = base_names(products[PRODUCT_NAME])
    if BRAND in products:
        texts = texts + " " + fold_series(products[BRAND])
    texts = texts.str.replace(r"[^\w%.']+", " ", regex=True).reset_index(drop=True)
    listed = texts.str.split().explode().dropna()
    listed = listed[~listed.isin(_FILLERS)]
    columns, words = pd.factorize(listed)
    shape = (len(products), len(words))
    has = sparse.csr_array((np.ones(len(listed)), (listed.index, columns)), shape=shape)
    has.data[:] = 1  # said twice is said
    return _NameWords(has, pd.util.hash_array(words.to_numpy(dtype=object)))


def shared_events(
    event: NDArray[np.integer], product: NDArray[np.integer], products: int
) -> SharedEvents:
    """Count the events of ``(rows,)`` `event` at ``(rows,)`` `product`, numbers below `products`.
    Rows of one event must be neighbours; those with a negative product number are left out."""
    known = product >= 0
    starts = run_starts(event[known])
    copies = np.diff(starts, append=np.count_nonzero(known))
    several = np.repeat(copies > 1, copies)
    counts = np.bincount(product[known][~several], minlength=products)
    # Each event and product once; one number a pair is found faster than rows.
    width = max(products, 1)
    number = np.repeat(np.arange(len(starts)), copies)[several]
    number, node = np.divmod(pd.unique(number * width + product[known][several]), width)
    counts += np.bincount(node, minlength=products)
    spread = np.bincount(number)[number]
    copied = (spread > 1) & (spread <= MAX_EVENT_PRODUCTS)
    number, _ = pd.factorize(number[copied])
    shape = (number.max(initial=-1) + 1, products)
    stands_on = sparse.csr_array((np.ones(len(number)), (number, node[copied])), shape=shape)
    return SharedEvents(counts, sparse.triu(stands_on.T @ stands_on, k=1).tocsr())


def _siblings(shared: SharedEvents, words: _NameWords) -> Pairs:
    """Products that share so many review events that they must be siblings."""
    found = shared.pairs.tocoo()
    pairs, common = np.stack([found.row, found.col]), found.data
    siblings = common >= MIN_JACCARD * (shared.counts[pairs].sum(axis=0) - common)
    pairs, certain = pairs[:, siblings], common[siblings] > CHANCE_EVENTS
    return pairs[:, certain | (words.overlap(pairs) >= MIN_NAME_OVERLAP)]
