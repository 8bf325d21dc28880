"""What requests and answers look like; the OpenAPI document is made from these."""

import re
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    StrictBool,
    StringConstraints,
    Tag,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)
from pydantic_core import PydanticCustomError

IdText = Annotated[str, StringConstraints(min_length=1, max_length=128)]
"""An id as text."""
_SECONDS = re.compile(r"[+-]?[0-9.]+")  # pydantic takes them for seconds since 1970


def _number(value: Any) -> Any:
    """pydantic takes "5" and true for numbers; 5.0 is a whole one, as JSON has it."""
    if isinstance(value, bool | str):
        raise PydanticCustomError("number", "Input should be a number")
    return value


def _text(value: Any) -> Any:
    """pydantic takes numbers for times."""
    seconds = isinstance(value, str) and _SECONDS.fullmatch(value.strip())
    if seconds or (value is not None and not isinstance(value, str | datetime)):
        raise PydanticCustomError("time", "Input should be a time as text, with its time zone")
    return value


def _in_the_calendar(value: datetime) -> datetime:
    """An offset can lead out of the years that there are."""
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise PydanticCustomError("time", "Input should be a time in the years 1 to 9999") from None


def _id(value: Any, validate: ValidatorFunctionWrapHandler) -> int | str:
    """One sentence for what is neither: of two kinds pydantic tells of both, in its own words."""
    try:
        found: int | str = validate(value)
    except ValidationError:
        raise PydanticCustomError(
            "id", "Input should be a whole number up to 2^62, or text of 1 to 128 characters"
        ) from None
    return found


Whole = Annotated[int, BeforeValidator(_number)]
Number = Annotated[float, BeforeValidator(_number)]
Price = Annotated[float, Field(ge=0, allow_inf_nan=False), BeforeValidator(_number)]
Time = Annotated[AwareDatetime, BeforeValidator(_text), AfterValidator(_in_the_calendar)]

Id = Annotated[
    # The document has such bounds as floating point, where 2**63 - 1 does not exist.
    Annotated[Whole, Field(ge=-(2**62), le=2**62)] | IdText,
    WrapValidator(_id),
    Field(description="An id as the shop writes it: a whole number or text."),
]

# What one request is computed and answered in a second or two for.
MAX_BATCH_USERS = 1000
MAX_EVENTS = 1000

EXAMPLE_USER = 18283
EXAMPLE_PRODUCT = "422220087"


class _Request(BaseModel):
    """Unknown keys are refused: a misspelt filter must not be ignored in silence."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())


class _Answer(BaseModel):
    model_config = ConfigDict(protected_namespaces=())


class Filters(_Request):
    """Which products may stand in the list."""

    brands: list[IdText] | None = Field(
        default=None, max_length=100, description="Any of these brands; case and accents are free."
    )
    categories: list[IdText] | None = Field(
        default=None, max_length=100, description="Any of these categories."
    )
    min_price: Price | None = Field(default=None, description="Dong.")
    max_price: Price | None = Field(default=None, description="Dong.")

    @property
    def has_filters(self) -> bool:
        return bool(
            self.brands
            or self.categories
            or self.min_price is not None
            or self.max_price is not None
        )


class RecommendRequest(Filters):
    """One user's list."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"user_id": EXAMPLE_USER, "topk": 5},
                {"user_id": "guest-7", "history": [EXAMPLE_PRODUCT], "max_price": 300000},
            ]
        }
    )

    user_id: Id
    topk: Whole = Field(default=10, ge=1, le=1000)
    exclude_seen: StrictBool = Field(
        default=True,
        description="Leave out what the user has had, and its other sizes and shades.",
    )
    exclude: list[Id] = Field(
        default_factory=list, max_length=1000, description="Products to leave out."
    )
    history: list[Id] = Field(
        default_factory=list,
        max_length=1000,
        description="Products that the user is known to like; for users we do not know yet.",
    )


class Recommendation(_Answer):
    """One product of a list."""

    product_id: str
    score: float
    rank: int
    product_name: str
    brand: str
    price: float | None = Field(description="Dong; null when unknown.")


class RecommendResponse(_Answer):
    """One user's list, best first."""

    user_id: int | str
    recommendations: list[Recommendation]
    count: int
    fallback: bool = Field(description="The model had nothing to go by.")
    fallback_method: str | None = Field(
        description="What made the list instead: content or popularity; again: everything that "
        "fits has been seen, so it may be bought again.",
        examples=[None],
    )
    model_id: str
    latency_ms: float


class BatchRequest(Filters):
    """The lists of many users."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"user_ids": [EXAMPLE_USER, "guest-7"], "topk": 3}]}
    )

    user_ids: list[Id] = Field(min_length=1, max_length=MAX_BATCH_USERS)
    topk: Whole = Field(default=10, ge=1, le=1000)
    exclude_seen: StrictBool = True
    exclude: list[Id] = Field(default_factory=list, max_length=1000)


class BatchResponse(_Answer):
    """All lists, in the order of the users asked for, all made by one model."""

    results: list[RecommendResponse]
    count: int
    model_id: str
    latency_ms: float


class SimilarRequest(Filters):
    """Products like another."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"product_id": EXAMPLE_PRODUCT, "topk": 5}]}
    )

    product_id: Id
    topk: Whole = Field(default=10, ge=1, le=1000)
    exclude: list[Id] = Field(default_factory=list, max_length=1000)


class SimilarResponse(_Answer):
    """Products like `product_id`, most similar first."""

    product_id: str
    product_name: str
    recommendations: list[Recommendation]
    count: int
    fallback: bool
    fallback_method: str | None = Field(description="content or popularity", examples=[None])
    model_id: str
    latency_ms: float


class SearchRequest(Filters):
    """Products by words."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"query": "kem chống nắng cho da dầu", "topk": 5}]}
    )

    query: Annotated[
        str, StringConstraints(min_length=1, max_length=500, strip_whitespace=True, pattern=r"\S")
    ] = Field(description="Vietnamese or English, with or without accents.")
    topk: Whole = Field(default=10, ge=1, le=1000)


class SearchResponse(_Answer):
    """Products that fit the query, best first; none if no word of it is known."""

    query: str
    recommendations: list[Recommendation]
    count: int
    model_id: str
    latency_ms: float


class Interaction(_Request):
    """A purchase or review. `event_id` makes it safe to send again: it counts once."""

    event_id: IdText
    user_id: Id
    product_id: Id
    rating: Number = Field(ge=1, le=5, allow_inf_nan=False, description="Stars.")
    timestamp: Time | None = Field(
        default=None, description="When it happened, with a time zone; default: now."
    )
    comment: str = Field(default="", max_length=10_000)


class InteractionsRequest(_Request):
    """Many interactions. Each is judged by itself: those that are no `Interaction` are rejected
    without the others."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "events": [
                        {
                            "event_id": "order-1001-1",
                            "user_id": EXAMPLE_USER,
                            "product_id": EXAMPLE_PRODUCT,
                            "rating": 5,
                        }
                    ]
                }
            ]
        }
    )

    events: list[Any] = Field(
        min_length=1, max_length=MAX_EVENTS, description="Each of them an `Interaction`."
    )


def _form(body: Any) -> str:
    return "events" if isinstance(body, dict) and "events" in body else "event"


InteractionsBody = Annotated[
    Annotated[InteractionsRequest, Tag("events")] | Annotated[Interaction, Tag("event")],
    Discriminator(_form),
]
"""One interaction, or many as `events`."""


class Rejected(_Answer):
    """An event that is not stored, and must not be sent again as it is."""

    index: int = Field(description="Its place in `events`, from 0.")
    event_id: str | None = Field(description="As it was sent, null if that was no text.")
    reason: str = Field(examples=["rating: Input should be less than or equal to 5"])


class InteractionsResponse(_Answer):
    """The accepted ones are on the disk; the next data refresh has them, each once."""

    accepted: int
    rejected: list[Rejected]


class Traffic(_Answer):
    """Requests of the last minutes, over all workers."""

    minutes: int
    requests: int
    requests_per_second: float
    error_rate: float | None
    fallback_rate: float | None
    avg_latency_ms: float | None
    p50_latency_ms: float | None
    p95_latency_ms: float | None
    p99_latency_ms: float | None


class Stats(_Answer):
    """What the request log says, and the state of this worker."""

    traffic: list[Traffic]
    fallback_methods: dict[str, int]
    endpoints: dict[str, int]
    model_id: str | None
    uptime_seconds: float
    rows_waiting: int
    rows_dropped: int


class ReloadRequest(_Request):
    """Which model to serve."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"model_id": "als_20250115_100000"}]})

    model_id: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$",
        description="Default: the registry's current best.",
    )


class CanaryRequest(_Request):
    """Which model to try on how many users."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"model_id": "als_20250115_100000", "share": 0.1}]}
    )

    model_id: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$")
    share: Number = Field(gt=0, le=1, description="Share of the users.")


class ModelTraffic(_Answer):
    """The last minutes of one model, from the request log."""

    model_id: str
    requests: int
    error_rate: float
    fallback_rate: float | None
    avg_latency_ms: float


class CanaryReport(_Answer):
    """How the models in service do beside each other."""

    model_id: str | None
    canary_model_id: str | None
    share: float | None
    minutes: float
    models: list[ModelTraffic]


class ReloadResponse(_Answer):
    """All workers serve `model_id` now."""

    model_id: str
    previous_model_id: str | None
    workers: int
    seconds: float


class Health(_Answer):
    """Whether recommendations work, tried out at the time of asking."""

    status: str = Field(examples=["healthy"], description="healthy, no_model or failing")
    model_id: str | None
    model_type: str | None
    detail: str
    uptime_seconds: float


class ModelInfo(_Answer):
    """The model that answers are made by."""

    model_id: str
    model_type: str
    data_version: str | None
    created_at: str | None
    loaded_at: str
    users: int
    items: int
    available_items: int
    catalogue_version: str
    embeddings: bool
    metrics: dict[str, Any]
    hyperparameters: dict[str, Any]
