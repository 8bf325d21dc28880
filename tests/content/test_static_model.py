import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from recsys.content.product_texts import product_texts
from recsys.content.static_encoder import StaticEncoder
from recsys.content.static_fit import fit_static
from recsys.errors import InputError
from recsys.text import fold, normalise

QUERIES = [
    "kem chống nắng cho da dầu",
    "kem chong nang",
    "SỮA RỬA MẶT ✨ 日本 \U0001f9f4",
    "",
    "?!…",
    "k\u200bem",
    "La\u0303o ho\u0301a",
    "x" * 5000,
]


@pytest.fixture
def texts(shop: pd.DataFrame) -> list[str]:
    fields = ["product_name", "brand", "description"]
    return product_texts(shop, fields, [], max_characters=2000).tolist()


@pytest.fixture
def encoder(texts: list[str]) -> StaticEncoder:
    return fit_static(texts)


def test_fitting_twice_gives_the_same_bits_in_any_order(texts: list[str]) -> None:
    first, second = fit_static(texts), fit_static(texts[::-1])
    assert first.tokenizer.to_str() == second.tokenizer.to_str()
    assert first.weights.tobytes() == second.weights.tobytes()


def test_vectors_have_length_one_and_nothing_known_gives_zeros(encoder: StaticEncoder) -> None:
    lengths = np.linalg.norm(encoder.encode(["kem chống nắng", "", "日本", "?!"]), axis=1)
    np.testing.assert_allclose(lengths, [1, 0, 0, 0], atol=1e-6)


def test_one_text_gets_the_same_vector_alone_and_in_company(
    encoder: StaticEncoder, texts: list[str]
) -> None:
    together = encoder.encode(texts)
    alone = np.concatenate([encoder.encode([text]) for text in texts])
    np.testing.assert_allclose(together, alone, atol=1e-6)
    assert encoder.encode([]).shape == (0, 384)


def test_words_without_accents_mean_nearly_the_same(encoder: StaticEncoder) -> None:
    for words in ("kem chống nắng", "sữa rửa mặt", "nước tẩy trang", "dưỡng ẩm"):
        accented, plain = encoder.encode([words, fold(words)])
        assert accented @ plain > 0.8


def test_small_catalogues_get_vectors_of_the_same_length() -> None:
    encoder = fit_static(["Kem dưỡng ẩm", "Sữa rửa mặt", ""])
    assert encoder.encode(["Kem dưỡng ẩm"]).shape == (1, 384)
    assert np.isfinite(fit_static(["Kem Kem"]).weights).all()


def test_a_catalogue_without_words_cannot_be_fitted() -> None:
    for texts in ([], [""], ["!!!", "…"]):
        with pytest.raises(InputError, match="no product has a text"):
            fit_static(texts)


def test_large_catalogues_are_fitted_on_a_sample(texts: list[str]) -> None:
    sampled = fit_static(texts, most=40)
    assert sampled.tokenizer.get_vocab_size() < fit_static(texts).tokenizer.get_vocab_size()


def test_the_library_opens_the_saved_model_and_agrees(
    encoder: StaticEncoder, texts: list[str], tmp_path: Path
) -> None:
    from sentence_transformers import SentenceTransformer

    encoder.save(tmp_path / "model")
    model = SentenceTransformer(str(tmp_path / "model"), device="cpu", local_files_only=True)
    given = texts + [normalise(query) for query in QUERIES]
    theirs = model.encode(given, show_progress_bar=False)
    ours = StaticEncoder.load(tmp_path / "model")
    np.testing.assert_allclose(ours.encode(given), theirs, atol=1e-6)
    singles = np.concatenate([ours.encode([text]) for text in given])
    np.testing.assert_allclose(singles, theirs, atol=1e-6)


def test_files_that_are_no_model_are_refused(encoder: StaticEncoder, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read as a static model"):
        StaticEncoder.load(tmp_path)
    encoder.save(tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(InputError, match="cannot be read as a static model"):
        StaticEncoder.load(tmp_path / "model")


def test_encoding_a_query_imports_neither_torch_nor_the_library(
    encoder: StaticEncoder, tmp_path: Path
) -> None:
    encoder.save(tmp_path / "model")
    program = f"""
import sys
from pathlib import Path
import recsys.content.embeddings
from recsys.content.static_encoder import StaticEncoder
vector = StaticEncoder.load(Path({str(tmp_path / "model")!r})).encode(["kem chong nang"])
assert abs((vector ** 2).sum() - 1) < 1e-5
heavy = {{"torch", "sentence_transformers", "transformers", "scipy", "sklearn"}}
found = heavy & set(sys.modules)
assert not found, found
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("known", ["kem chống nắng", "Kem CHONG nang", "kem zzzzz", "chongg nắng"])
def test_a_query_is_known_by_half_of_its_words(encoder: StaticEncoder, known: str) -> None:
    assert encoder.knows(normalise(known))


@pytest.mark.parametrize(
    "unknown", ["laptop dell", "xyzzy plugh kem", "日本 kem 東京", "15", "", "?!"]
)
def test_words_in_pieces_of_a_letter_or_two_are_unknown(
    encoder: StaticEncoder, unknown: str
) -> None:
    assert not encoder.knows(normalise(unknown))
