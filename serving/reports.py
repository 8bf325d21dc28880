"""What operators and their tools ask for and are told; the OpenAPI document is made from these."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, Field

from serving.schemas import Id, ModelId, Number, Placement, Reason, Request, Time, Whole


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


class ReloadRequest(Request):
    """Which model to serve."""

    model_id: ModelId | None = Field(
        default=None, description="Default: the registry's current best."
    )


class CanaryRequest(Request):
    """Which model to try on how many users."""

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


class PreviewRequest(Request):
    """A list to look at without the rules and with them: a user's, by default a stranger's, or what
    stands beside a product (in a placement of `bought_together`: what completes it)."""

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
    parts: dict[str, float] = Field(
        default={},
        description="Of the list with the rules: what each part of the model adds to the score.",
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
