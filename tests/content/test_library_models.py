import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from recsys.content import ContentConfig, ModelConfig
from recsys.content.embeddings import current_embeddings
from recsys.content.job import embed_products
from recsys.content.library_models import ModelUnavailableError, open_library_model
from recsys.settings import Settings

SENTENCES = ["kem chống nắng cho da dầu", "sữa rửa mặt dịu nhẹ", "mặt nạ dưỡng ẩm ban đêm"] * 3


@pytest.fixture(scope="module")
def transformer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT with random weights, saved as a sentence-transformers model."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("transformer")
    raw = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    raw.train_from_iterator(
        [*SENTENCES, "query: passage:"],
        trainers.WordPieceTrainer(vocab_size=300, special_tokens=special),
    )
    raw.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_max_length=64,
    )
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=raw.get_vocab_size(),
        hidden_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
    )
    BertModel(config).save_pretrained(folder / "bert")
    tokenizer.save_pretrained(folder / "bert")
    inner = Transformer(str(folder / "bert"))
    model = SentenceTransformer(modules=[inner, Pooling(24)], device="cpu")
    model.save(str(folder / "model"), create_model_card=False)
    return folder / "model"


def with_model(config: ContentConfig, folder: Path, **options: object) -> ContentConfig:
    model = ModelConfig(name=str(folder), **options)
    return config.model_copy(update={"model": model})


def test_any_model_by_path_embeds_the_shop(
    settings: Settings, config: ContentConfig, shop: pd.DataFrame, transformer: Path
) -> None:
    config = with_model(config, transformer, product_prompt="passage: ", query_prompt="query: ")
    summary = embed_products(settings, config, shop, "v1")
    found = current_embeddings(settings)
    assert found is not None
    assert summary["model"] == summary["requested_model"] == str(transformer)
    assert summary["fallback_reason"] is None
    assert found.vectors.shape == (112, 24)
    np.testing.assert_allclose(np.linalg.norm(found.vectors, axis=1), 1, atol=1e-5)
    query = found.encode_query("kem chống nắng")
    direct = open_library_model(config.model).encode_query("kem chống nắng")
    np.testing.assert_allclose(query, direct, atol=1e-6)
    assert len(found.search("kem chống nắng", 5)) == 5


def test_new_products_are_encoded_by_the_kept_copy_of_the_model(
    settings: Settings, config: ContentConfig, shop: pd.DataFrame, transformer: Path, tmp_path: Path
) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(transformer, moved)
    config = with_model(config, moved)
    embed_products(settings, config, shop.iloc[:100], "v1")
    moved.rename(tmp_path / "gone")
    assert embed_products(settings, config, shop.iloc[:100], "v1")["encoded"] == 0
    summary = embed_products(settings, config, shop, "v2")
    assert (summary["reason"], summary["fallback_reason"]) == (None, None)
    assert summary["encoded"] == 12


def test_a_model_that_comes_back_replaces_the_fallback(
    settings: Settings, config: ContentConfig, shop: pd.DataFrame, transformer: Path, tmp_path: Path
) -> None:
    config = with_model(config, tmp_path / "later")
    assert embed_products(settings, config, shop, "v1")["model"] == "catalog-static"
    shutil.copytree(transformer, tmp_path / "later")
    summary = embed_products(settings, config, shop, "v1")
    assert summary["model"] == str(tmp_path / "later")
    assert summary["encoded"] == 112


def test_a_set_with_settings_of_before_is_read(
    settings: Settings, config: ContentConfig, shop: pd.DataFrame, transformer: Path
) -> None:
    embed_products(settings, with_model(config, transformer), shop, "v1")
    found = current_embeddings(settings)
    assert found is not None
    file = found.path / "manifest.json"
    metadata = json.loads(file.read_text())
    metadata["model_settings"] |= {"device": None, "batch_size": 64}
    file.write_text(json.dumps(metadata))
    before = current_embeddings(settings)
    assert before is not None
    assert len(before.search("kem chống nắng", 3)) == 3


def test_prompts_length_and_segmenter_shape_the_vectors(transformer: Path) -> None:
    def vector(**options: object) -> np.ndarray:
        model = ModelConfig(name=str(transformer), **options)
        return open_library_model(model).encode_products(["kem chống nắng cho da dầu"])[0]

    plain = vector()
    assert not np.allclose(vector(product_prompt="passage: "), plain)
    assert not np.allclose(vector(max_length=4), plain)
    assert not np.allclose(vector(word_segmenter="textwrap:wrap"), plain)


def test_a_segmenter_s_words_are_joined_by_underscores(transformer: Path) -> None:
    model = ModelConfig(name=str(transformer), word_segmenter="tests_segmenter:pairs")
    with pytest.raises(ModelUnavailableError, match="tests_segmenter:pairs cannot be imported"):
        open_library_model(model)
    opened = open_library_model(ModelConfig(name=str(transformer), word_segmenter="re:escape"))
    assert opened.segment is not None
    assert opened.segment("a b") == "a\\ b"
    listing = open_library_model(ModelConfig(name=str(transformer), word_segmenter="textwrap:wrap"))
    assert listing.segment is not None
    assert listing.segment("kem chống nắng") == "kem_chống_nắng"


def test_a_folder_that_holds_no_model_cannot_be_had(tmp_path: Path) -> None:
    (tmp_path / "modules.json").write_text("[]")
    with pytest.raises(ModelUnavailableError, match="cannot be loaded"):
        open_library_model(ModelConfig(name=str(tmp_path)))


def test_a_hub_out_of_reach_is_noticed_within_seconds(
    monkeypatch: pytest.MonkeyPatch, free_port: int
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{free_port}")
    with pytest.raises(ModelUnavailableError, match="does not answer"):
        open_library_model(ModelConfig(name="intfloat/multilingual-e5-small", download=True))
