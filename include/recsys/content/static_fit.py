"""Fitting ``catalog-static``: a bag of byte-pair tokens, weighted and condensed.

The tokenizer is trained on the texts and on their accent-folded copies, and every text is fitted
together with its folded copy: ``dưỡng`` and ``duong`` then stand in the same texts and get nearly
the same vector, so that queries typed without accents find what they mean."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import sparse
from sklearn.utils.extmath import randomized_svd
from threadpoolctl import threadpool_limits
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

from recsys.arrays import BoolArray, Float32Array, Float64Array
from recsys.columns import fold_series
from recsys.content import static_encoder
from recsys.content.static_encoder import DIMENSIONS, FIT_PRODUCTS, StaticEncoder, count_tokens
from recsys.errors import InputError

_MIN_FREQUENCY = 2
_SVD_STEPS = 3
_SEED = 0
# Components below this share of the largest are noise of a small catalogue.
_SMALLEST_COMPONENT = 1e-4


def fit_static(
    texts: Sequence[str] | pd.Series, *, most: int = FIT_PRODUCTS, with_folded: bool = True
) -> StaticEncoder:
    """Fit tokenizer and token vectors on product `texts` (in normal form).

    Deterministic, and independent of the order of `texts`. At most `most` of them are used.
    `with_folded` false leaves out the accent-folded copy, to measure what it gives.

    Raises `InputError` if no text has a letter or digit."""
    sample = _sample(texts, most)
    bilingual = (sample + "\n" + fold_series(sample) if with_folded else sample).tolist()
    tokenizer = _train_tokenizer(bilingual)
    counts = count_tokens(tokenizer, bilingual, tokenizer.get_vocab_size())
    speaks = _says_something(tokenizer)
    if not speaks.any() or not counts[:, speaks].nnz:
        raise InputError("catalog-static cannot be fitted: no product has a text")
    frequency = np.bincount(counts.indices, minlength=counts.shape[1])
    rarity = np.log((1 + counts.shape[0]) / (1 + frequency)) + 1
    rarity[~speaks | (frequency == 0)] = 0
    components = _components(counts, rarity)
    weights = np.zeros((len(rarity), DIMENSIONS), dtype=np.float32)
    weights[:, : components.shape[1]] = rarity[:, None] * components
    return StaticEncoder(tokenizer, weights)


def _sample(texts: Sequence[str] | pd.Series, most: int) -> pd.Series:
    """Distinct texts in the order of their hashes, which is random but always the same."""
    distinct = pd.Series(pd.unique(pd.Series(texts, dtype="str")), dtype="str")
    distinct = distinct[distinct != ""]
    hashes = [
        pd.util.hash_array(distinct.iloc[at : at + static_encoder.BLOCK].to_numpy(dtype=object))
        for at in range(0, len(distinct), static_encoder.BLOCK)
    ]
    order = np.argsort(np.concatenate([np.zeros(0, np.uint64), *hashes]), kind="stable")
    return distinct.iloc[order[:most]].reset_index(drop=True)


def _train_tokenizer(texts: Sequence[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(unk_token=static_encoder.UNKNOWN))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Lowercase(), normalizers.Strip()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Metaspace(), pre_tokenizers.Punctuation()]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=static_encoder.VOCABULARY,
        min_frequency=_MIN_FREQUENCY,
        special_tokens=[static_encoder.UNKNOWN],
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def _says_something(tokenizer: Tokenizer) -> BoolArray:
    """``(tokens,)`` whether a token has a letter or digit; the unknown and blank ones have none."""
    by_id = pd.Series({number: token for token, number in tokenizer.get_vocab().items()})
    words = by_id.sort_index().astype("str")
    says = words.str.contains(r"[^\W_]", regex=True) & (words != static_encoder.UNKNOWN)
    return says.to_numpy(dtype=bool)


def _components(counts: sparse.csr_array, rarity: Float64Array) -> Float32Array:
    """``(tokens, at most DIMENSIONS)``: right singular vectors of the weighted, unit rows."""
    weighted = counts.copy()
    weighted.data = (1 + np.log(weighted.data)) * rarity[weighted.indices].astype(np.float32)
    norms = np.sqrt(weighted.multiply(weighted).sum(axis=1))
    weighted.data /= np.repeat(np.maximum(norms, 1e-12), np.diff(weighted.indptr))
    # The matrices are too slim for several threads to help, and one gives the same bits anywhere.
    with threadpool_limits(1, user_api="blas"):
        _, values, components = randomized_svd(
            weighted.astype(np.float32),
            min(DIMENSIONS, *weighted.shape),
            n_iter=_SVD_STEPS,
            random_state=_SEED,
        )
    kept: Float32Array = components[values > _SMALLEST_COMPONENT * values[0]].T
    return kept
