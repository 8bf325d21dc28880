"""A ``transformers`` text-classification model as the sentiment scorer."""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from recsys.arrays import Float32Array, UInt64Array
from recsys.columns import normalise_series
from recsys.comments.scoring import PretrainedConfig
from recsys.config import ConfigError
from recsys.errors import InputError
from recsys.publishing import sha256_of

BATCH_SIZE = 32  # comments
MAX_TOKENS = 256  # after which a comment is cut off; models such as PhoBERT take no more

_KEY = "config/comments.yaml: pretrained"
_KNOWN_LABELS = {"positive": 1.0, "pos": 1.0, "neutral": 0.5, "neu": 0.5}
_KNOWN_LABELS |= {"negative": 0.0, "neg": 0.0}
_STARS = re.compile(r"([1-5]) stars?")


@dataclass(frozen=True)
class PretrainedScorer:
    """Sentiment = the mean of the labels' values, weighted by the model's probabilities."""

    version: str
    tokenizer: Any
    model: Any
    values: Float32Array
    config: PretrainedConfig

    def score(self, texts: pd.Series, keys: UInt64Array) -> Float32Array:
        """Sentiment in [0, 1] of each text; `keys` play no part."""
        import torch

        cleaned = normalise_series(texts).to_numpy()
        # Texts of similar length share a batch, so that little is padding.
        order = np.argsort([len(text) for text in cleaned], kind="stable")
        scores = np.empty(len(cleaned), dtype=np.float32)
        values = torch.from_numpy(self.values)
        with torch.inference_mode():
            for at in range(0, len(order), BATCH_SIZE):
                rows = order[at : at + BATCH_SIZE]
                batch = self.tokenizer(
                    [str(text) for text in cleaned[rows]],
                    padding=True,
                    truncation=True,
                    max_length=min(MAX_TOKENS, self.tokenizer.model_max_length),
                    return_tensors="pt",
                )
                probabilities = torch.softmax(self.model(**batch).logits, dim=-1)
                scores[rows] = (probabilities @ values).numpy()
        return scores


def load_pretrained(config: PretrainedConfig) -> PretrainedScorer:
    """Load the model that `config` names. Raises `InputError` if there is no such model, or it has
    a label whose sentiment is not known."""
    if not config.model:
        raise ConfigError(f"{_KEY}.model: scorer is 'pretrained' but no model is named")
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(config.model)
        model = AutoModelForSequenceClassification.from_pretrained(config.model).eval()
    except (OSError, ValueError) as error:
        raise InputError(f"{_KEY}.model: cannot load {config.model!r}: {error}") from error
    labels = [model.config.id2label[at] for at in range(model.config.num_labels)]
    values = np.array([_value(label, config) for label in labels], dtype=np.float32)
    identity = f"{_weights_identity(config.model, model)} {values.tolist()} {MAX_TOKENS}"
    digest = hashlib.sha256(identity.encode()).hexdigest()[:12]
    name = re.sub(r"[^A-Za-z0-9.]+", "_", Path(config.model).name)
    return PretrainedScorer(f"pretrained-{name}-{digest}", tokenizer, model, values, config)


def _value(label: str, config: PretrainedConfig) -> float:
    if label in config.label_values:
        return config.label_values[label]
    if stars := _STARS.fullmatch(label.lower()):
        return (int(stars[1]) - 1) / 4
    if label.lower() in _KNOWN_LABELS:
        return _KNOWN_LABELS[label.lower()]
    wanted = "say which sentiment it stands for, from 0 (bad) to 1 (good)"
    raise ConfigError(f"{_KEY}.label_values: the model has the label {label!r}; {wanted}")


def _weights_identity(name: str, model: Any) -> str:
    """What changes when the model's files change: their hashes, or the hub's commit."""
    if not Path(name).is_dir():
        return f"{name} {model.config._commit_hash}"
    files = sorted(path for path in Path(name).iterdir() if path.is_file())
    return " ".join(f"{path.name}={sha256_of(path)}" for path in files)
