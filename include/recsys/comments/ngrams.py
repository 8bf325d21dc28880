"""Comments as sparse counts of word and character n-grams, hashed into a fixed width.

Three blocks side by side, one for each view of a text: words (with accents), folded words, and
characters of the folded text. The folded blocks carry over to comments typed without accents.

Before that, what Vietnamese shoppers type is spelled out: teencode, emoji, drawn-out letters.
"""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from scipy import sparse

from recsys.arrays import Int64Array, UInt64Array
from recsys.comments.features import MULTIPLIER, windows
from recsys.settings import CORES
from recsys.text import fold_series, normalise_series

POSITIVE: Final = "☺"  # stands for every happy emoji
NEGATIVE: Final = "☹"  # stands for every unhappy one

TEENCODE: Final[dict[str, str]] = {
    short: word
    for word, shorts in {
        "không": "ko k kg kh khg khong hok hong hông hem hk kô khum khôg kông",
        "được": "dc đc dk đk dx đx đươc đựơc",
        "sản phẩm": "sp spham sphẩm",
        "với": "vs voi zới",
        "mới": "ms",
        "rồi": "r rùi rui gòi ròi",
        "gì": "j ji gj",
        "vậy": "z zậy v",
        "cũng": "cx cg cug cũg",
        "luôn": "lun luônn",
        "thích": "thik thix thick thjk thít",
        "trước": "trc trk",
        "người": "ng ngừi",
        "mọi người": "mn mng",
        "mình": "mk mik mjk m",
        "bạn": "bn",
        "nhưng": "nhg nhưg nma nhma",
        "nhiều": "nhìu nhiu",
        "làm": "lm",
        "nước": "nc",
        "bình thường": "bt bth btg bthg",
        "biết": "bít bik pít",
        "đang": "đag",
        "trong": "trog",
        "dùng": "dùg xài sài sd dug dung",
        "hàng": "hag",
        "nhân viên": "nv",
        "giao hàng": "ship",
        "chất lượng": "cl clg",
        "yêu": "iu êu",
        "quá": "wá qá",
        "quên": "wên",
        "thôi": "thui thoy",
        "lắm": "lém",
        "vẫn": "vẩn",
        "tuyệt vời": "tuyetvoi",
        "kem chống nắng": "kcn",
        "sữa rửa mặt": "srm",
        "nước tẩy trang": "ntt",
        "tẩy tế bào chết": "ttbc tbc",
        "hạn sử dụng": "hsd",
        "ok": "oke okie okê okela okay okey oki okeee uki ôkê okla",
        "cảm ơn": "thanks thank tks thks camon cảmơn",
        "shop": "sốp shọp shopp",
        "tốt": "gud good tót",
    }.items()
    for short in shorts.split()
}

_EMOJI: Final[dict[str, str]] = {
    **dict.fromkeys(
        "😀😁😂🤣😃😄😅😆😉😊😋😎😍😘🥰😗😙😚🙂🤗🤩😇🥳👍👏🙌💪💯💋💕💖💗💙💚💛🧡💜🤍🖤❤♥♡💓💞💝🌹🌸🌺🌟⭐✨🎉😻🤤👌🫶✅",
        POSITIVE,
    ),
    **dict.fromkeys(
        "😒😞😔😟😕🙁☹😣😖😫😩😢😭😤😠😡🤬😰😥😓🤮🤢👎💔😑🙄😬😨😱🤡💩❌😾😿", NEGATIVE
    ),
}

_RUN: Final = re.compile(r"([^\W\d_])\1{2,}")


def spelled_out(token: str) -> str:
    """The word or words that a lower-case `token` stands for.

    >>> [spelled_out(token) for token in ("ko", "sp", "tốtttt", "😍", "kem")]
    ['không', 'sản phẩm', 'tốt', '☺', 'kem']
    """
    token = _RUN.sub(r"\1", token)
    return _EMOJI.get(token) or TEENCODE.get(token, token)


BUCKETS = 1 << 18  # columns of one block
BLOCKS = 3
WIDTH = BLOCKS * BUCKETS
CHARACTER_SIZES = (3, 4, 5)
_CHUNK = 4_096  # texts at a time: some 50 MB of n-grams
_SHIFT = np.uint64(64 - 18)


@dataclass(frozen=True)
class _Words:
    """The words of some texts, in order: the text's index and two hashes for each word."""

    owner: Int64Array
    accented: UInt64Array
    folded: UInt64Array
    plain: pa.Array  # each text as its folded words between single blanks


def in_chunks(texts: pd.Series) -> Iterator[tuple[slice, sparse.csr_matrix]]:
    """Count `texts` piece by piece, on two threads: pairs of (rows, counts of those rows).

    At most a few pieces exist at a time, so memory does not grow with the number of texts.
    """
    starts = range(0, len(texts), _CHUNK)
    slices = [slice(at, min(at + _CHUNK, len(texts))) for at in starts]
    with ThreadPoolExecutor(CORES) as pool:
        for at in range(0, len(slices), CORES):
            group = slices[at : at + CORES]
            yield from zip(
                group, pool.map(lambda rows: count(texts.iloc[rows]), group), strict=True
            )


def count(texts: pd.Series) -> sparse.csr_matrix:
    """float32 counts, one row a text, `WIDTH` columns. `texts`: str."""
    words = _words(texts)
    n = len(texts)
    blocks = [
        _matrix(*_word_ngrams(words.owner, words.accented), n),
        _matrix(*_word_ngrams(words.owner, words.folded), n),
        _matrix(*_character_ngrams(words.plain), n),
    ]
    return sparse.hstack(blocks, format="csr", dtype=np.float32)


def _words(texts: pd.Series) -> _Words:
    lower = pc.utf8_lower(pa.array(normalise_series(texts), type=pa.string()))
    # Everything but letters and digits is a word of its own; emoji variants are one emoji.
    spaced = pc.replace_substring_regex(lower, r"[\x{fe00}-\x{fe0f}\x{200d}]|\p{M}", "")
    spaced = pc.replace_substring_regex(spaced, r"([^\p{L}\p{N}\s])", r" \1 ")
    lists = pc.utf8_split_whitespace(spaced)
    owner = pc.list_parent_indices(lists).to_numpy(zero_copy_only=False).astype(np.int64)
    encoded = pc.list_flatten(lists).dictionary_encode()
    ids = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    # Splitting leaves "" at the ends of a text: it means no words at all.
    meant = [spelled_out(word).split() for word in encoded.dictionary.to_pylist()]
    vocabulary = pd.Series([word for words in meant for word in words], dtype="str")
    lengths = np.array([len(words) for words in meant], dtype=np.int64)
    owner, ids = _expand(owner, ids, lengths)
    folded = fold_series(vocabulary)
    return _Words(
        owner,
        _hash(vocabulary)[ids],
        _hash(folded)[ids],
        _joined(owner, ids, folded, len(texts)),
    )


def _expand(
    owner: Int64Array, ids: Int64Array, lengths: Int64Array
) -> tuple[Int64Array, Int64Array]:
    """Replace each word by the words it stands for: `lengths` of them, numbered one by one."""
    first = np.concatenate([[0], np.cumsum(lengths)])[:-1] if len(lengths) else lengths
    repeats = lengths[ids]
    position = np.arange(repeats.sum()) - np.repeat(np.cumsum(repeats) - repeats, repeats)
    return np.repeat(owner, repeats), np.repeat(first[ids], repeats) + position


def _joined(owner: Int64Array, ids: Int64Array, vocabulary: pd.Series, n: int) -> pa.Array:
    offsets = np.searchsorted(owner, np.arange(n + 1)).astype(np.int32)
    words = pa.array(vocabulary, type=pa.string()).take(pa.array(ids))
    return pc.binary_join(pa.ListArray.from_arrays(pa.array(offsets), words), " ")


def _hash(words: pd.Series) -> UInt64Array:
    return pd.util.hash_array(words.to_numpy(dtype=object), categorize=False)


def _word_ngrams(owner: Int64Array, words: UInt64Array) -> tuple[Int64Array, UInt64Array]:
    """Owner and hash of each word and each pair of neighbours."""
    pair = owner[1:] == owner[:-1]
    pairs = (words[:-1] * MULTIPLIER + words[1:])[pair]
    return np.concatenate([owner, owner[1:][pair]]), np.concatenate([words, pairs])


def _character_ngrams(plain: pa.Array) -> tuple[Int64Array, UInt64Array]:
    """Owner and hash of each window of 3 to 5 bytes of a text with a blank at either end."""
    padded = pc.binary_join_element_wise("", plain, "", " ")
    return windows(padded, CHARACTER_SIZES)


def _matrix(owner: Int64Array, hashes: UInt64Array, n: int) -> sparse.csr_matrix:
    # The best-mixed bits of a product are its highest.
    columns = (hashes * MULTIPLIER >> _SHIFT).astype(np.int32)
    ones = np.ones(len(columns), dtype=np.float32)
    return sparse.csr_matrix((ones, (owner.astype(np.int32), columns)), shape=(n, BUCKETS))
