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


class Request(BaseModel):
    """Unknown keys are refused: a misspelt filter must not be ignored in silence."""

    model_config = ConfigDict(extra="forbid")


class ListRequest(Request):
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


class Interaction(Request):
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


class InteractionsRequest(Request):
    """Many interactions. Each is judged by itself: those that are no `Interaction` are rejected
    without the others."""

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
