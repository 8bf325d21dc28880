"""What requests and answers look like; the OpenAPI document is made from these."""

import re
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    GetPydanticSchema,
    StrictBool,
    StringConstraints,
    Tag,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
    WrapValidator,
)
from pydantic_core import PydanticCustomError, core_schema

from recsys import events
from recsys.merchandising import reasons
from recsys.schema import Kind


def _number(value: Any) -> Any:
    """pydantic takes "5" and true for numbers; 5.0 is a whole one, as JSON has it."""
    if isinstance(value, bool | str):
        raise PydanticCustomError("number", "Input should be a number")
    return value


def _in_the_calendar(value: Any, validate: ValidatorFunctionWrapHandler) -> datetime:
    """pydantic takes numbers, and text of digits, for seconds since 1970; and an offset can lead
    out of the years that there are."""
    if not isinstance(value, str | datetime) or re.fullmatch(r"\s*[+-]?[0-9.]+\s*", str(value)):
        raise PydanticCustomError("time", "Input should be a time as text, with its time zone")
    try:
        moment: datetime = validate(value)
        return moment.astimezone(UTC)
    except OverflowError:
        raise PydanticCustomError("time", "Input should be a time in the years 1 to 9999") from None


_NO_ID = "Input should be a whole number up to 2^62, or text of 1 to 128 characters"
_BOUNDS: dict[str, Any] = {"ge": -(2**62), "le": 2**62}
# Every request has an id, a batch a thousand of them: no function of Python's is called for a whole
# number or text, and one sentence tells of what is neither.
_WHOLE_OR_TEXT = core_schema.union_schema(
    [
        core_schema.int_schema(strict=True, **_BOUNDS),
        core_schema.str_schema(strict=True, min_length=1, max_length=128),
        core_schema.no_info_before_validator_function(_number, core_schema.int_schema(**_BOUNDS)),
    ],
    mode="left_to_right",
    custom_error_type="id",
    custom_error_message=_NO_ID,
)

Whole = Annotated[int, BeforeValidator(_number)]
Number = Annotated[float, BeforeValidator(_number)]
Price = Annotated[float, Field(ge=0, allow_inf_nan=False), BeforeValidator(_number)]
Time = Annotated[AwareDatetime, WrapValidator(_in_the_calendar)]
IdText = Annotated[str, StringConstraints(min_length=1, max_length=128)]
Id = Annotated[
    int | str,
    GetPydanticSchema(lambda *_: _WHOLE_OR_TEXT),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": -(2**62), "maximum": 2**62},
                {"type": "string", "minLength": 1, "maxLength": 128},
            ]
        }
    ),
    Field(description="An id as the shop writes it: a whole number or text."),
]
# A list as the default would be copied deeply for each request.
_NONE: dict[str, Any] = {"default_factory": list, "json_schema_extra": {"default": []}}
Products = Annotated[list[Id], Field(max_length=1000, **_NONE)]
Names = Annotated[list[IdText], Field(max_length=100)]
Placement = Annotated[
    str,
    StringConstraints(pattern=events.PLACEMENT),
    Field(description="Where in the shop the list is shown.", examples=["home"]),
]
ExcludeSeen = StrictBool | Literal["until_due"]
_EXCLUDE_SEEN = (
    "Leave out what the user has had, and its other sizes and shades; `until_due`: until the time "
    "after which customers of the shop buy the product again."
)
ModelId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$")]

MAX_CART = 100  # products; whoever has more needs no more
MAX_MANY = 1000  # users or events of a request, which takes a second or two

EXAMPLE_USER = 18283
EXAMPLE_PRODUCT = "422220087"
EXAMPLE_MODEL = "als_20250115_100000"


def _examples(*examples: dict[str, Any]) -> ConfigDict:
    return ConfigDict(json_schema_extra={"examples": list(examples)})


class _Request(BaseModel):
    """Unknown keys are refused: a misspelt filter must not be ignored in silence."""

    model_config = ConfigDict(extra="forbid")


class ListRequest(_Request):
    """How many products, and which may stand in the list."""

    brands: Names | None = Field(
        default=None, description="Any of these brands; case and accents are free."
    )
    categories: Names | None = Field(default=None, description="Any of these categories.")
    min_price: Price | None = Field(default=None, description="Dong.")
    max_price: Price | None = Field(default=None, description="Dong.")
    topk: Whole = Field(default=10, ge=1)  # at most `max_topk`, which the routes look at
    placement: Placement | None = None
    session_id: Id | None = Field(default=None, description="The visit.")
    explain: StrictBool = Field(
        default=False, description="Say of each product why it stands in the list."
    )

    @property
    def is_narrow(self) -> bool:
        """Whether the customer has said what the list is to be of."""
        prices = self.min_price is not None or self.max_price is not None
        return bool(self.brands or self.categories or prices)


class RecommendRequest(ListRequest):
    """One user's list."""

    model_config = _examples(
        {"user_id": EXAMPLE_USER, "topk": 5},
        {"session_id": "s-77", "history": [EXAMPLE_PRODUCT], "max_price": 300000},
        {"user_id": EXAMPLE_USER, "exclude_seen": "until_due"},
    )

    user_id: Id | None = Field(
        default=None,
        description="A guest has none: `session_id` or `history` say what is known, if anything.",
    )
    exclude_seen: ExcludeSeen = Field(default=True, description=_EXCLUDE_SEEN)
    exclude: Annotated[Products, Field(description="Products to leave out.")]
    history: Annotated[
        Products,
        Field(description="Products that the user is known to like; for users we do not know yet."),
    ]

    @property
    def is_plain(self) -> bool:
        """Whether nothing but the user, `exclude` and what is due decide about the list."""
        asked = self.brands or self.categories or self.history or not self.exclude_seen
        return not asked and self.min_price is None and self.max_price is None


class Sentences(BaseModel):
    """The same for Vietnamese and English readers."""

    vi: str
    en: str


class Reason(BaseModel):
    """Why a product stands in a list: what counted most."""

    kind: reasons.Why = Field(
        description="history: a product of the customer's history, or that was asked for; text: a "
        "text alike; popular; trend: popular at the moment; rule: a rule of the shop; new: new in "
        "the shop; explore: tried out."
    )
    product_id: str | None = Field(description="The product that is named.")
    product_name: str | None
    rule: str | None = Field(description="The name of the rule.")
    text: Sentences


class Recommendation(BaseModel):
    """One product of a list."""

    product_id: str
    score: float
    rank: int
    product_name: str
    brand: str
    price: float | None = Field(description="Dong; null when unknown.")
    reason: Reason | None = Field(default=None, description="There if `explain` was asked for.")


class _List(BaseModel):
    recommendation_id: str = Field(
        description="The id of this list, a UUID: send it with what the customer does with it."
    )
    recommendations: list[Recommendation]
    count: int
    model_id: str
    latency_ms: float


class RecommendResponse(_List):
    """One user's list, best first."""

    user_id: int | str | None
    fallback: bool = Field(description="The list is not made for this customer by the model.")
    fallback_method: str | None = Field(
        description="What made the list instead: content or popularity (also where what is popular "
        "is the model in service); again: everything that "
        "fits has been seen, so it may be bought again.",
        examples=[None],
    )


class BatchRequest(ListRequest):
    """The lists of many users."""

    model_config = _examples({"user_ids": [EXAMPLE_USER, "guest-7"], "topk": 3})

    user_ids: list[Id] = Field(min_length=1, max_length=MAX_MANY)
    exclude_seen: ExcludeSeen = Field(default=True, description=_EXCLUDE_SEEN)
    exclude: Products


class BatchResponse(BaseModel):
    """All lists, in the order of the users asked for, all made by one model."""

    results: list[RecommendResponse]
    count: int
    model_id: str
    latency_ms: float


class SimilarRequest(ListRequest):
    """Products like another."""

    model_config = _examples({"product_id": EXAMPLE_PRODUCT, "topk": 5})

    product_id: Id
    exclude: Products
    user_id: Id | None = Field(default=None, description="Who sees the list.")


class SimilarResponse(_List):
    """Products like `product_id`, most similar first."""

    product_id: str
    product_name: str
    fallback: bool
    fallback_method: str | None = Field(description="content or popularity", examples=[None])


class TogetherRequest(ListRequest):
    """What completes a cart."""

    model_config = _examples(
        {"product_ids": [EXAMPLE_PRODUCT, "318900012"], "topk": 5, "placement": "cart"}
    )

    product_ids: list[Id] = Field(
        min_length=1, max_length=MAX_CART, description="What is in the cart."
    )
    exclude: Annotated[Products, Field(description="Products to leave out.")]
    user_id: Id | None = Field(default=None, description="Who sees the list.")


class TogetherResponse(_List):
    """What is bought together with the products of the cart, best first."""

    product_ids: list[str] = Field(description="Those of the cart that the answer is made for.")
    unknown: list[str] = Field(
        description="Those that the service does not know: they are ignored.", examples=[[]]
    )
    fallback: bool = Field(description="Of these nobody knows what completes them.")
    fallback_method: str | None = Field(
        description="What made the list instead: similar, content or popularity", examples=[None]
    )


class SearchRequest(ListRequest):
    """Products by words."""

    model_config = _examples({"query": "kem chống nắng cho da dầu", "topk": 5})

    query: Annotated[
        str, StringConstraints(min_length=1, max_length=500, strip_whitespace=True, pattern=r"\S")
    ] = Field(description="Vietnamese or English, with or without accents.")
    user_id: Id | None = Field(default=None, description="Who sees the list.")

    @property
    def is_narrow(self) -> bool:
        return True


class SearchResponse(_List):
    """Products that fit the query, best first; none if no word of it is known."""

    query: str


class Interaction(_Request):
    """What a customer did. `event_id` makes it safe to send again: it counts once."""

    event_id: IdText
    user_id: Id | None = Field(default=None, description="A rating needs it; guests have none.")
    product_id: Id
    kind: Literal[events.KINDS] = Field(  # type: ignore[valid-type]
        default=Kind.RATING.value, description="What it was; only a rating has stars and a comment."
    )
    rating: Number | None = Field(
        default=None, ge=1, le=5, allow_inf_nan=False, description="Stars, of a rating."
    )
    timestamp: Time | None = Field(
        default=None, description="When it happened, with a time zone; default: now."
    )
    comment: str = Field(default="", max_length=10_000)
    quantity: Number | None = Field(
        default=None,
        gt=0,
        le=events.MOST_PIECES,
        allow_inf_nan=False,
        description="Pieces; default: 1.",
    )
    value: Number | None = Field(
        default=None,
        ge=0,
        lt=events.VALUE_LIMIT,
        allow_inf_nan=False,
        description="What all pieces cost together, in dong.",
    )
    currency: str | None = Field(
        default=None, max_length=16, description="Of the value; nothing but VND is taken."
    )
    recommendation_id: str | None = Field(
        default=None, max_length=128, description="The answer in which the product was shown."
    )
    placement: str | None = Field(
        default=None, max_length=128, description="Where in the shop.", examples=["home"]
    )
    session_id: Id | None = Field(
        default=None, description="The visit; needed without a user, and of no use to a rating."
    )


_EVENT = {"user_id": EXAMPLE_USER, "product_id": EXAMPLE_PRODUCT, "rating": 5}
_SIGNAL = {"user_id": EXAMPLE_USER, "product_id": EXAMPLE_PRODUCT, "kind": "purchase"}


class InteractionsRequest(_Request):
    """Many interactions. Each is judged by itself: those that are no `Interaction` are rejected
    without the others."""

    model_config = _examples(
        {
            "events": [
                {"event_id": "review-77", **_EVENT},
                {"event_id": "order-1001-1", **_SIGNAL, "quantity": 2, "value": 378000},
            ]
        }
    )

    events: list[Any] = Field(
        min_length=1, max_length=MAX_MANY, description="Each of them an `Interaction`."
    )


def _form(body: Any) -> str:
    return "events" if isinstance(body, dict) and "events" in body else "event"


InteractionsBody = Annotated[
    Annotated[InteractionsRequest, Tag("events")] | Annotated[Interaction, Tag("event")],
    Discriminator(_form),
]
"""One interaction, or many as `events`."""


class Rejected(BaseModel):
    """An event that is not stored, and must not be sent again as it is."""

    index: int = Field(description="Its place in `events`, from 0.")
    event_id: str | None = Field(description="As it was sent, null if that was no text.")
    reason: str = Field(examples=["rating: Input should be less than or equal to 5"])


class InteractionsResponse(BaseModel):
    """The accepted ones are on the disk; the next data refresh has them, each once."""

    accepted: int
    rejected: list[Rejected]
    left_out: int = Field(
        default=0,
        description="Of customers who are forgotten: not stored, and not to be sent again. There "
        "if there are any.",
    )


class Forgetting(BaseModel):
    """A request to forget a customer."""

    number: int = Field(description="In the register.")
    asked_at: datetime
    due_at: datetime = Field(description="Until when all that is kept of the customer is removed.")


class Traffic(BaseModel):
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


class Stats(BaseModel):
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

    model_config = _examples({"model_id": EXAMPLE_MODEL})

    model_id: ModelId | None = Field(
        default=None, description="Default: the registry's current best."
    )


class CanaryRequest(_Request):
    """Which model to try on how many users."""

    model_config = _examples({"model_id": EXAMPLE_MODEL, "share": 0.1})

    model_id: ModelId
    share: Number = Field(gt=0, le=1, description="Share of the users.")


class ModelTraffic(BaseModel):
    """The last minutes of one model, from the request log."""

    model_id: str
    requests: int
    error_rate: float
    fallback_rate: float | None
    avg_latency_ms: float


class CanaryReport(BaseModel):
    """How the models in service do beside each other."""

    model_id: str | None
    canary_model_id: str | None
    share: float | None
    minutes: float
    models: list[ModelTraffic]


class Health(BaseModel):
    """Whether recommendations work, tried out at the time of asking."""

    status: str = Field(examples=["healthy"], description="healthy, no_model or failing")
    model_id: str | None
    model_type: str | None
    detail: str
    uptime_seconds: float


class ModelInfo(BaseModel):
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
    rules: int = Field(description="The shop's rules in service, expired ones included.")
    rules_sha256: str = Field(description="Of the file that they are from.")
    rules_problem: str | None = Field(
        description="Why the file does not count as it is, if it does not.", examples=[None]
    )
    metrics: dict[str, Any]
    hyperparameters: dict[str, Any]


class RuleReport(BaseModel):
    """A rule, as the file has it, but for keys without a value."""

    name: str
    state: str = Field(description="waiting, active or expired")
    action: str
    products: dict[str, Any]
    placements: list[str] = []
    position: int | None = None
    strength: float | None = None
    at_most: int | None = None
    at_least: int | None = None
    start: datetime | None = None
    end: datetime | None = None
    author: str
    reason: str


class WarningReport(BaseModel):
    """What a rule asks for and will not get."""

    rule: str
    kind: str = Field(examples=["matches_nothing"])
    key: str
    sentence: str


class RulesReport(BaseModel):
    """The rules in service."""

    sha256: str = Field(description="Of the file that they are from.")
    problem: str | None = Field(
        description="Why the file does not count as it is, if it does not.", examples=[None]
    )
    rules: list[RuleReport]
    warnings: list[WarningReport]


class PreviewRequest(_Request):
    """A list to look at without the rules and with them: a user's, by default a stranger's, or what
    stands beside a product (in a placement of `bought_together`: what completes it)."""

    model_config = _examples({"user_id": EXAMPLE_USER, "placement": "home"})

    user_id: Id | None = Field(default=None, description="Whose list, or who sees it.")
    product_id: Id | None = None
    placement: Placement | None = None
    topk: Whole = Field(default=10, ge=1, description="Default: the placement's length.")
    at: Time | None = Field(
        default=None, description="By the rules that are active then; default: now."
    )


class PreviewedProduct(BaseModel):
    """One product of a list that is looked at."""

    rank: int
    product_id: str
    product_name: str
    brand: str
    price: float | None
    score: float = Field(description="By which the list is ordered; means nothing between lists.")
    source: str = Field(description="What put it there, as in the files of served lists.")
    reason: Reason | None = Field(
        default=None, description="Of the list with the rules, by what it has from the model."
    )


class EffectReport(BaseModel):
    """What a rule did to a product that it means: its rank if this rule alone were not there, and
    as it is; null: not in the list."""

    rule: str
    what: str = Field(description="hidden, left_out, brought_in, up or down")
    product_id: str
    product_name: str
    rank_without: int | None
    rank_with: int | None


class PreviewReport(BaseModel):
    """The list without rules and with them. Nothing in it is drawn by exploration."""

    placement: str | None
    at: datetime
    model_id: str
    before: list[PreviewedProduct]
    after: list[PreviewedProduct]
    effects: list[EffectReport]
    warnings: list[str] = Field(description="Rules that take more than half of the list.")
