"""Product text: its normal form, its embeddings, and search in them.

Here is ``config/content.yaml``: which texts are embedded, and by which model."""

from typing import Literal

from pydantic import Field, field_validator

from recsys.config import ConfigModel

CATALOG_STATIC = "catalog-static"
"""The model that is fitted on the shop's own catalogue and needs no hub."""


class ModelConfig(ConfigModel):
    """The wanted model, and what to do when it cannot be had."""

    name: str = CATALOG_STATIC
    revision: str | None = None
    download: bool = False
    fallback: Literal["catalog-static", "strict"] = "catalog-static"
    product_prompt: str = ""
    query_prompt: str = ""
    max_length: int | None = Field(default=None, ge=1)
    word_segmenter: str | None = None

    @field_validator("word_segmenter")
    @classmethod
    def _names_a_function(cls, value: str | None) -> str | None:
        if value is not None and not all(value.partition(":")):
            raise ValueError("expected 'module:function', such as 'underthesea:word_tokenize'")
        return value


class ContentConfig(ConfigModel):
    """The whole file."""

    FILE = "content.yaml"

    text_fields: tuple[str, ...] = Field(
        default=("product_name", "brand", "category", "attributes", "description"), min_length=1
    )
    model: ModelConfig = ModelConfig()
    keep_sets: int = Field(default=3, ge=1)
