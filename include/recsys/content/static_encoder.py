"""Encoding with a static model by NumPy and ``tokenizers`` alone.

The files are those that sentence-transformers writes for ``StaticEmbedding`` + ``Normalize``; the
vectors agree with the library's. A service that only embeds queries needs no torch."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from recsys.arrays import Float32Array, Int32Array, unit_rows
from recsys.errors import InputError

if TYPE_CHECKING:
    from scipy import sparse

DIMENSIONS = 384
"""Length of a vector that `recsys.content.static_fit` fits."""
VOCABULARY = 20_000
"""Tokens at most, accented and unaccented together."""
FIT_PRODUCTS = 10_000
"""Larger catalogues are fitted on a sample of so many products."""

UNKNOWN = "[UNK]"
"""The token of what no token is for."""
_WORD_START = "▁"
_PIECE = 4  # letters of a token that is not the whole word, and says something of it

_TOKENIZER_FILE = "tokenizer.json"
_WEIGHTS_FILE = "model.safetensors"
_WEIGHTS_NAME = "embedding.weight"
BLOCK = 1_000  # texts that are worked on at once, so that memory stays small


class StaticEncoder:
    """The mean of the tokens' vectors, normalised. `weights` are ``(tokens, d)`` float32, one row
    for each id of `tokenizer`."""

    def __init__(self, tokenizer: Tokenizer, weights: Float32Array) -> None:
        self.tokenizer = tokenizer
        self.weights = weights

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read a saved model. Raises `InputError` if `folder` is not one, or does not fit."""
        try:
            tokenizer = Tokenizer.from_file(str(folder / _TOKENIZER_FILE))
            weights = load_file(folder / _WEIGHTS_FILE)[_WEIGHTS_NAME]
        except Exception as error:  # both libraries raise bare Exceptions
            raise InputError(f"{folder}: cannot be read as a static model: {error}") from error
        if weights.ndim != 2 or len(weights) < tokenizer.get_vocab_size():
            raise InputError(
                f"{folder}: the model has vectors of shape {weights.shape} for "
                f"{tokenizer.get_vocab_size()} tokens"
            )
        return cls(tokenizer, np.ascontiguousarray(weights, dtype=np.float32))

    @property
    def dimensions(self) -> int:
        return int(self.weights.shape[1])

    def encode(self, texts: Sequence[str]) -> Float32Array:
        """``(texts, d)`` unit vectors; zeros for a text without any known token."""
        if len(texts) == 1:
            tokens, _ = tokenize(self.tokenizer, texts)
            return unit_rows(self.weights[tokens].sum(axis=0, keepdims=True))
        blocks = [texts[start : start + BLOCK] for start in range(0, len(texts), BLOCK)]
        with ThreadPoolExecutor() as threads:  # both steps give up the interpreter's lock
            sums = list(threads.map(self._sums, blocks))
        return unit_rows(np.concatenate([np.zeros((0, self.dimensions), np.float32), *sums]))

    encode_products = encode

    def knows(self, query: str) -> bool:
        """Whether at least half of the words of `query` stand in the texts that this was fitted on.
        Others fall into pieces of a letter or two, whose vectors say nothing of them: a product
        would be near to any of them. A piece of four letters that is half of the word will do,
        for a slip."""
        words = [word for word in query.split() if any(map(str.isalpha, word))]
        known = sum(map(self._knows_word, words))
        return bool(words) and 2 * known >= len(words)

    def save(self, folder: Path) -> None:
        """Write a stock sentence-transformers model."""
        from sentence_transformers import SentenceTransformer
        from sentence_transformers.base.modules import Normalize
        from sentence_transformers.sentence_transformer.modules import StaticEmbedding

        tokens = StaticEmbedding(self.tokenizer, embedding_weights=self.weights)
        model = SentenceTransformer(
            modules=[tokens, Normalize()], device="cpu", similarity_fn_name="cosine"
        )
        model.save(str(folder), create_model_card=False)

    def _knows_word(self, word: str) -> bool:
        tokens = self.tokenizer.encode(word, add_special_tokens=False).tokens
        pieces = (token.lstrip(_WORD_START) for token in tokens if token != UNKNOWN)
        longest = max(map(len, pieces), default=0)
        return longest >= len(word) or (longest >= _PIECE and 2 * longest >= len(word))

    def _sums(self, texts: Sequence[str]) -> Float32Array:
        sums: Float32Array = count_tokens(self.tokenizer, texts, len(self.weights)) @ self.weights
        return sums


def count_tokens(tokenizer: Tokenizer, texts: Sequence[str], tokens: int) -> "sparse.csr_array":
    """``(texts, tokens)`` float32."""
    from scipy import sparse  # not needed for queries

    found, bounds = tokenize(tokenizer, texts)
    ones = np.ones(len(found), dtype=np.float32)
    counts = sparse.csr_array((ones, found, bounds), shape=(len(texts), tokens))
    counts.sum_duplicates()
    return counts


def tokenize(tokenizer: Tokenizer, texts: Sequence[str]) -> tuple[Int32Array, Int32Array]:
    """``(tokens, bounds)``: the ids of text ``i`` are ``tokens[bounds[i]:bounds[i + 1]]``."""
    ids: list[Int32Array] = []
    for start in range(0, len(texts), BLOCK):  # an encoding weighs a hundred times its ids
        found = tokenizer.encode_batch_fast(
            list(texts[start : start + BLOCK]), add_special_tokens=False
        )
        ids.extend(np.array(encoding.ids, dtype=np.int32) for encoding in found)
    bounds = np.zeros(len(ids) + 1, dtype=np.int32)
    np.cumsum([len(each) for each in ids], out=bounds[1:])
    return np.concatenate([np.zeros(0, np.int32), *ids]), bounds
