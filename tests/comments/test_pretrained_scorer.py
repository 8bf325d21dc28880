import pandas as pd
import pytest

from recsys.comments import CommentConfig, pretrained, score_view
from recsys.comments.pretrained import load_pretrained
from recsys.comments.scoring import PretrainedConfig
from recsys.config import load_config
from recsys.errors import InputError

TEXTS = ["kem tốt", "kem tệ quá", "", "kem " * 400]


@pytest.fixture
def model_folder(tmp_path):
    """Build a tiny BERT with random weights on disk."""

    def build(labels):
        from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

        folder = tmp_path / "model"
        folder.mkdir(exist_ok=True)
        words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "kem", "tốt", "tệ", "quá"]
        (folder / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
        BertTokenizerFast(
            vocab=str(folder / "vocab.txt"), do_lower_case=True, strip_accents=False
        ).save_pretrained(folder)
        config = BertConfig(
            vocab_size=len(words),
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=16,
            max_position_embeddings=512,
            id2label=dict(enumerate(labels)),
            label2id={label: at for at, label in enumerate(labels)},
        )
        BertForSequenceClassification(config).save_pretrained(folder)
        return folder

    return build


def config_for(folder, **options):
    return PretrainedConfig(model=str(folder), **options)


def test_it_gives_the_mean_value_of_the_labels_whatever_the_batches(model_folder, monkeypatch):
    monkeypatch.setattr(pretrained, "BATCH_SIZE", 2)
    folder = model_folder(["NEG", "NEU", "POS"])
    scorer = load_pretrained(config_for(folder))
    scores = scorer.score(pd.Series(TEXTS, dtype="str"), None)
    assert ((scores > 0) & (scores < 1)).all()
    assert scores[0] != scores[1]
    alone = [scorer.score(pd.Series([text], dtype="str"), None)[0] for text in TEXTS]
    assert scores == pytest.approx(alone, abs=1e-5)


def test_stars_and_named_values_are_labels_too(model_folder):
    folder = model_folder([f"{stars} star{'s' if stars > 1 else ''}" for stars in range(1, 6)])
    assert load_pretrained(config_for(folder)).values.tolist() == [0, 0.25, 0.5, 0.75, 1]
    folder = model_folder(["LABEL_0", "LABEL_1"])
    values = {"LABEL_0": 0.0, "LABEL_1": 1.0}
    assert load_pretrained(config_for(folder, label_values=values)).values.tolist() == [0, 1]


def test_an_unknown_label_is_an_error_that_names_it(model_folder):
    with pytest.raises(InputError, match="LABEL_0"):
        load_pretrained(config_for(model_folder(["LABEL_0", "LABEL_1"])))


def test_a_model_that_is_not_there_is_an_error_that_names_it(tmp_path):
    with pytest.raises(InputError, match="nosuchmodel"):
        load_pretrained(PretrainedConfig(model=str(tmp_path / "nosuchmodel")))


def test_the_version_changes_with_the_weights(model_folder):
    labels = ["NEG", "POS"]
    first = load_pretrained(config_for(model_folder(labels))).version
    assert load_pretrained(config_for(model_folder(labels))).version != first


def test_the_refresh_uses_it_and_caches_its_scores(settings, model_folder, make_view):
    folder = model_folder(["negative", "positive"])
    (settings.home / "config").mkdir(parents=True)
    (settings.home / "config" / "comments.yaml").write_text(
        f"scorer: pretrained\npretrained: {{model: {folder}}}\n", encoding="utf-8"
    )
    view = make_view([("u", text, 5, "2024-01-01") for text in TEXTS])
    as_of = pd.Timestamp("2025-01-01", tz="UTC")
    first = score_view(
        settings, load_config(settings, CommentConfig), view, as_of=as_of, may_train=True
    )
    again = score_view(
        settings, load_config(settings, CommentConfig), view, as_of=as_of, may_train=True
    )
    assert first.scorer.startswith("pretrained-model-")
    assert (first.summary["scored_now"], again.summary["scored_now"]) == (len(TEXTS), 0)
    pd.testing.assert_series_equal(first.quality, again.quality)
