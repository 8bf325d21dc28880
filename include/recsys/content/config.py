"""``config/content.yaml``: which texts are embedded, and by which model."""

from typing import Literal

from pydantic import Field, field_validator

from recsys.settings import ConfigModel

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
    device: str | None = None
    batch_size: int = Field(default=64, ge=1)
    max_length: int | None = Field(default=None, ge=1)
    word_segmenter: str | None = None

    @field_validator("word_segmenter")
    @classmethod
    def _names_a_function(cls, value: str | None) -> str | None:
        if value is not None and not all(value.partition(":")):
            raise ValueError("expected 'module:function', such as 'underthesea:word_tokenize'")
        return value


class StaticConfig(ConfigModel):
    """How ``catalog-static`` is fitted."""

    dimensions: int = Field(default=384, ge=2)
    vocabulary: int = Field(default=20_000, ge=100)
    fit_products: int = Field(default=10_000, ge=1)
    name_repeats: int = Field(default=2, ge=1)


class ContentConfig(ConfigModel):
    """The whole file."""

    text_fields: tuple[str, ...] = Field(min_length=1)
    boilerplate_share: float = Field(default=0.2, gt=0, le=1)
    max_characters: int = Field(default=1_000, ge=1)
    model: ModelConfig = ModelConfig()
    catalog_static: StaticConfig = StaticConfig()
    refit_share: float = Field(default=0.2, ge=0, le=1)
    index_above: int = Field(default=50_000, ge=0)
    keep_sets: int = Field(default=3, ge=1)
