"""The settings of comment scoring: ``config/comments.yaml``."""

from pydantic import Field

from recsys.settings import ConfigModel


class CampaignConfig(ConfigModel):
    """When the same text from many users counts as a campaign."""

    min_users: int = Field(default=5, ge=2)
    min_words: int = Field(default=4, ge=1)
    span_days: int = Field(default=28, ge=2)


class CommentConfig(ConfigModel):
    """Everything that shapes ``comment_quality``."""

    full_length_words: int = Field(default=30, ge=2)
    campaign: CampaignConfig = CampaignConfig()
