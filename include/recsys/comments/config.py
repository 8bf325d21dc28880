"""The settings of comment scoring: ``config/comments.yaml``."""

from typing import Literal

from pydantic import Field

from recsys.config import ConfigModel


class CampaignConfig(ConfigModel):
    """When the same text from many users counts as a campaign."""

    min_users: int = Field(default=5, ge=2)
    min_words: int = Field(default=4, ge=1)
    span_days: int = Field(default=28, ge=2)


class LearnedConfig(ConfigModel):
    """The scorer that learns from the shop's own stars."""

    folds: int = Field(default=4, ge=2, le=20)
    max_training_texts: int = Field(default=16_000, ge=100)
    min_texts_per_class: int = Field(default=50, ge=2)
    min_auc: float = Field(default=0.7, ge=0.5, le=1)
    retrain_changed_share: float = Field(default=0.1, ge=0, le=1)
    keep: int = Field(default=5, ge=1)


class PretrainedConfig(ConfigModel):
    """A ``transformers`` text-classification model."""

    model: str = Field(default="", description="folder, or name on the model hub")
    label_values: dict[str, float] = Field(default_factory=dict)
    batch_size: int = Field(default=32, ge=1)
    max_tokens: int = Field(default=256, ge=8)


class CommentConfig(ConfigModel):
    """Everything that shapes ``comment_quality``."""

    FILE = "comments.yaml"

    scorer: Literal["learned", "pretrained", "none"] = "learned"
    sentiment_weight: float = Field(default=0.5, ge=0, le=1)
    mismatch_tolerance: float = Field(default=0.5, ge=0, lt=1)
    full_length_words: int = Field(default=30, ge=2)
    campaign: CampaignConfig = CampaignConfig()
    learned: LearnedConfig = LearnedConfig()
    pretrained: PretrainedConfig = PretrainedConfig()
