"""What scoring and training of `recsys.models.self_attention` share: its parameters, the shapes of
what is learned, and who sees whom. NumPy alone."""

from typing import Self

import numpy as np
from pydantic import Field, model_validator

from recsys.arrays import BoolArray, Float32Array, Float64Array, Int64Array
from recsys.models.base import Histories, Parameters
from recsys.models.histories import keep_entries, strength, user_rows

WIDENING = 2
"""The hidden layer behind each attention has so many times the dimensions."""
OUTER_NORMS = ("first_norm", "last_norm")
"""What is no part of a layer."""
_FAINTEST = 1e-3
_ROUNDING = 1e-3  # of sums of signals' weights

Weights = dict[str, Float32Array]
"""What is learned, by the names and with the shapes of `shapes_of`."""


class SelfAttentionParameters(Parameters):
    """What can be chosen of the network, and how it is trained."""

    dimensions: int = Field(default=128, ge=4, le=1024)
    layers: int = Field(default=2, ge=1, le=8)
    heads: int = Field(default=2, ge=1, le=16)
    length: int = Field(default=50, ge=1, le=500)  # so many of the latest entries are read
    epochs: int = Field(default=15, ge=1)  # passes over the data
    learning_rate: float = Field(default=0.001, gt=0)
    batch: int = Field(default=512, ge=1)  # at most so many answers are learned from at a time
    dropout: float = Field(default=0.4, ge=0, lt=1)
    weight_decay: float = Field(default=0.05, ge=0)
    label_smoothing: float = Field(default=0.1, ge=0, lt=1)
    # Each answer is compared with all products of a catalogue of up to so many, and with as many
    # drawn ones of a larger catalogue as `negatives` says.
    all_products: int = Field(default=20_000, ge=1)
    negatives: int = Field(default=2_048, ge=1)

    @model_validator(mode="after")
    def _heads_share_the_dimensions(self) -> Self:
        if self.dimensions % self.heads:
            raise ValueError(
                f"dimensions must be a multiple of heads, got {self.dimensions} and {self.heads}"
            )
        return self


def shapes_of(chosen: SelfAttentionParameters) -> dict[str, tuple[int, ...]]:
    """The shape of every array beside the vectors of products. These are made even by the first
    norm (scale, shift). A layer is ``x + attention(x)``, then ``x + down(gelu(up(x)))``, each on
    `x` made even by its norm."""
    layers, wide, inner = chosen.layers, chosen.dimensions, WIDENING * chosen.dimensions
    distances = (chosen.length, wide // chosen.heads)
    return {
        "first_norm": (2, wide),
        "attention_norm": (layers, 2, wide),
        "projection": (layers, wide, 3 * wide),  # queries, keys, values; each a part a head
        "projection_bias": (layers, 3 * wide),
        "distance_keys": (layers, *distances),
        "distance_values": (layers, *distances),
        "distance_bias": (layers, chosen.heads, chosen.length),
        "output": (layers, wide, wide),
        "output_bias": (layers, wide),
        "hidden_norm": (layers, 2, wide),
        "up": (layers, wide, inner),
        "up_bias": (layers, inner),
        "down": (layers, inner, wide),
        "down_bias": (layers, wide),
        "last_norm": (2, wide),
    }


def readable(histories: Histories) -> Histories:
    """`histories` without what says next to nothing, or that something was not liked."""
    return keep_entries(histories, strength(histories) >= _FAINTEST)


def latest_entries(histories: Histories, most: int) -> Histories:
    """`histories` with the `most` latest entries a user."""
    ends = histories.indptr[1:][user_rows(histories)]
    return keep_entries(histories, ends - np.arange(len(histories.items)) <= most)


def seen_at(times: Int64Array, steps: Float64Array, length: int) -> tuple[BoolArray, Int64Array]:
    """For ``(users, entries)`` `times`, and `steps` from the end: ``(users, entries, entries)``
    which entries each sees, and how many moments before it they were, at most ``length - 1``."""
    seen = times[:, None, :] <= times[:, :, None]
    before = steps[:, None, :] - steps[:, :, None] + _ROUNDING
    return seen, np.clip(before, 0, length - 1).astype(np.int64)
