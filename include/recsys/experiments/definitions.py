"""What an experiment is, and who is on which side of it.

Pure: the service, the evaluation and the tests assign with the same function, so that nobody
changes sides between workers, replicas, restarts and what is counted afterwards."""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from datetime import datetime
from hashlib import blake2b
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, Self

from pydantic import AfterValidator, AwareDatetime, Field, model_validator

from recsys.config import ConfigModel, Document, read_mapping

HOLDOUT = "holdout"
POPULARITY = "popularity"
CANARY = "canary"
RESERVED = (HOLDOUT, CANARY)

CHECK_PLACEMENT = "deployment-check"
"""Lists that are asked for here belong to no experiment: a deployment looks at what it deployed."""

MOST_VARIANTS = 8
_HASHES = 2**64
_ROUNDING = 1e-9

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]
Placement = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
Metric = Literal[
    "clicks_per_list",
    "carts_per_list",
    "purchases_per_list",
    "purchases_per_user",
    "value_per_user",
    "value_per_1000_lists",
]

COLUMNS: dict[str, tuple[str, str | None, float]] = {
    "clicks_per_list": ("clicks", "lists", 1),
    "carts_per_list": ("carts", "lists", 1),
    "purchases_per_list": ("purchases", "lists", 1),
    "purchases_per_user": ("purchases", None, 1),
    "value_per_user": ("value", None, 1),
    "value_per_1000_lists": ("value", "lists", 1000),
}
"""Of each metric the columns of a unit that are divided (without a second one: by the number of
units), and what the ratio is multiplied by for people. Values are in dong."""


def _no_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("expected a sentence")
    return text


class Variant(ConfigModel):
    """One side: a model by id, the newest sound one of a type, or, without either, whatever is
    deployed. `share` is that of all customers, in (0, 1]."""

    name: Name
    share: float = Field(gt=0, le=1)
    model_id: str | None = None
    model_type: str | None = None

    @model_validator(mode="after")
    def _one_model(self) -> Self:
        if self.model_id and self.model_type:
            raise ValueError("model_id and model_type exclude each other: give one of them")
        return self


class Guardrails(ConfigModel):
    """What a side may do to the service's answers before it is stopped: `max_fallback_increase`
    (a share of the requests) and `max_latency_ratio` are against the control. With fewer requests
    than `min_requests` there is nothing to judge by."""

    max_error_rate: float = Field(default=0.01, ge=0, le=1)
    max_fallback_increase: float = Field(default=0.1, ge=0, le=1)
    max_latency_ratio: float = Field(default=3, gt=0)
    min_requests: int = Field(default=50, ge=1)


class Definition(ConfigModel):
    """What a person writes down before the start. The first variant is the control. Without
    `placements` it is about all of them; without a `primary_metric` it has guardrails only.
    `smallest_effect` is relative: 0.05 are five percent of the control's rate."""

    name: Name
    question: Annotated[str, Field(max_length=500), AfterValidator(_no_blank)]
    variants: tuple[Variant, ...] = Field(min_length=1, max_length=MOST_VARIANTS)
    placements: tuple[Placement, ...] = Field(default=(), max_length=100)
    primary_metric: Metric | None = None
    smallest_effect: float = Field(default=0.05, gt=0, le=10)
    guardrails: Guardrails = Guardrails()
    longest_days: int = Field(default=56, ge=1, le=365)

    @model_validator(mode="after")
    def _sides_make_sense(self) -> Self:
        names = [variant.name for variant in self.variants]
        if len(set(names)) < len(names):
            raise ValueError(f"variants: {', '.join(names)}: expected each name once")
        total = sum(variant.share for variant in self.variants)
        if total > 1 + _ROUNDING:
            raise ValueError(f"variants: the shares add up to {total:g}, expected at most 1")
        if self.primary_metric is not None and len(names) < 2:
            raise ValueError("variants: expected a control and at least one other side")
        return self

    @property
    def control(self) -> Variant:
        return self.variants[0]

    def meets(self, other: "Definition") -> bool:
        """Whether some list would belong to both: both are measured, on a placement of both."""
        if self.primary_metric is None or other.primary_metric is None:
            return False
        both = set(self.placements) & set(other.placements)
        return not self.placements or not other.placements or bool(both)


class Experiment(ConfigModel):
    """A definition that was started, and how it ended. `salt` decides with the unit who is on which
    side; `planned_days` and `information` (`recsys.experiments.statistics`) are what the plan said,
    None where the past told too little; the evaluation fills in `information` then."""

    definition: Definition
    salt: str
    started_at: AwareDatetime
    started_by: str
    planned_days: int | None = Field(default=None, ge=1)
    information: float | None = Field(default=None, gt=0)
    ended_at: AwareDatetime | None = None
    ended_by: str | None = None
    ended_because: str | None = None

    @property
    def name(self) -> str:
        return self.definition.name

    @property
    def running(self) -> bool:
        return self.ended_at is None

    def days(self, now: datetime) -> float:
        """How many days it has run at `now`, or did run."""
        return ((self.ended_at or now) - self.started_at).total_seconds() / 86_400


class Side(NamedTuple):
    """Where a unit stands: the names that are recorded with its lists."""

    experiment: str
    variant: str


class Lot:
    """Divides all units by the hash of `salt` and unit; `shares` by side, what is left is None's.

    Each side begins in a lane of its own. As long as it has room there, a larger share takes units
    from nobody's part only, and whoever is on a side stays; what is too wide for its lane goes on
    in the others, from their far ends."""

    def __init__(self, salt: str, shares: Sequence[tuple[Side, float]]) -> None:
        self._salt = salt.encode() + b"\0"
        lane = 1 / len(shares)
        pieces: list[tuple[float, float, Side | None]] = []
        free: list[tuple[float, float]] = []
        for number, (side, share) in enumerate(shares):
            start = number * lane
            used = min(share, lane)
            pieces.append((start, start + used, side))
            free.append((start + used, start + lane))
        for side, share in shares:
            left = share - lane
            for number, (start, end) in enumerate(free):
                taken = min(left, end - start)
                if taken > 0:
                    pieces.append((end - taken, end, side))
                    free[number] = (start, end - taken)
                    left -= taken
        pieces += [(start, end, None) for start, end in free if end > start]
        pieces.sort(key=lambda piece: piece[:2])
        pieces = [piece for piece in pieces if piece[1] > piece[0]]
        self._starts = [round(start * _HASHES) for start, _, _ in pieces]
        self._sides = [side for _, _, side in pieces]

    def draw(self, unit: str) -> Side | None:
        """The side of `unit`, always the same one."""
        text = self._salt + unit.encode("utf-8", errors="replace")
        place = int.from_bytes(blake2b(text, digest_size=8).digest(), "big")
        return self._sides[bisect_right(self._starts, place) - 1]


class Assignment:
    """Who is on which side of the `experiments` (running ones) and of the holdout.

    The holdout comes first: who is in it takes part in nothing else. A measured experiment comes
    before one with guardrails only (the canary), which has those whom the first leaves out."""

    def __init__(self, experiments: Iterable[Experiment], holdout_share: float = 0.0) -> None:
        kept = Side(HOLDOUT, POPULARITY)
        self._holdout = Lot(HOLDOUT, [(kept, holdout_share)]) if holdout_share else None
        self._everywhere: Lot | None = None
        self._on: dict[str, Lot] = {}
        self._beneath: list[Lot] = []
        for experiment in experiments:
            definition = experiment.definition
            shares = [(Side(definition.name, one.name), one.share) for one in definition.variants]
            lot = Lot(experiment.salt, shares)
            if definition.primary_metric is None:
                self._beneath.append(lot)
            elif definition.placements:
                self._on.update(dict.fromkeys(definition.placements, lot))
            else:
                self._everywhere = lot

    def __bool__(self) -> bool:
        lots = (self._holdout, self._everywhere, self._on, self._beneath)
        return any(lots)

    def assign(self, unit: str, placement: str = "") -> Side | None:
        """The side of `unit` (the user, else the session) where the list is shown at `placement`;
        None if it is in no experiment."""
        if placement == CHECK_PLACEMENT:
            return None
        if self._holdout is not None and (side := self._holdout.draw(unit)) is not None:
            return side
        lot = self._on.get(placement, self._everywhere)
        if lot is not None and (side := lot.draw(unit)) is not None:
            return side
        for lot in self._beneath:
            if (side := lot.draw(unit)) is not None:
                return side
        return None


def read_definition(path: Path) -> Definition:
    """What a YAML or JSON file says. Raises `ConfigError` that names file and key."""
    return Document(((path, read_mapping(path)),)).validate(Definition)
