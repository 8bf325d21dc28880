"""What a customer does with a list: looks down it, clicks, puts into the cart, buys, dismisses.

Whoever looks at a place clicks by how much the product draws them, and looks at fewer places the
further down they are. The same rules make traffic of the past and traffic against the service."""

from typing import NamedTuple

import numpy as np

from recsys.arrays import BoolArray, Float32Array, Float64Array
from recsys.schema import Kind

LOOKS_FIRST, LOOKS_FALL = 0.95, 0.5
"""The first place is looked at so often; place n (from 1) by the factor ``n ** -LOOKS_FALL``."""

CLICK_LEVEL, CLICK_SLOPE, MOST_CLICKS = -5.0, 1.2, 0.6
"""Of the logistic curve by which attraction makes a click, and its upper end: a known uplift of the
clicks stays what it is only below 1."""

CART_LEVEL, CART_SLOPE, CART_NEED = -2.2, 0.4, 1.2
CART_BOUGHT, BOUGHT_WITHOUT_CART = 0.4, 0.02
VIEWED = 0.6
"""Of the clicks: product pages that report themselves."""
DISMISSED = 0.01
"""Of the places looked at where the product puts off: attraction below zero."""
LATER = 0.35
"""Of the purchases: those that come days after, `LATER_DAYS` on average."""
LATER_DAYS, LATEST_DAYS = 3.0, 20.0


class Deeds(NamedTuple):
    """What was done with each place of lists, in arrays of one shape ``(lists, places)``. Times are
    seconds after the list; those of what was not done mean nothing."""

    clicked: BoolArray
    viewed: BoolArray
    carted: BoolArray
    bought: BoolArray
    dismissed: BoolArray
    click_seconds: Float64Array
    cart_seconds: Float64Array
    purchase_seconds: Float64Array

    def by_kind(self) -> dict[Kind, tuple[BoolArray, Float64Array]]:
        """Where each kind was done, and after how many seconds."""
        return {
            Kind.CLICK: (self.clicked, self.click_seconds),
            Kind.VIEW: (self.viewed, self.click_seconds + 1),
            Kind.CART: (self.carted, self.cart_seconds),
            Kind.PURCHASE: (self.bought, self.purchase_seconds),
            Kind.DISMISS: (self.dismissed, self.click_seconds),
        }


def look_share(places: int) -> Float64Array:
    """``(places,)`` how probable it is that a place is looked at.

    >>> look_share(4).round(2).tolist()
    [0.95, 0.67, 0.55, 0.48]
    """
    return np.asarray(LOOKS_FIRST * np.arange(1, places + 1) ** -LOOKS_FALL)


def click_share(attraction: Float32Array) -> Float64Array:
    """How probable a click is on a product that is looked at.

    >>> click_share(np.float32([-1, 0, 1, 2, 3])).round(3).tolist()
    [0.001, 0.004, 0.013, 0.041, 0.119]
    """
    curve = _logistic(CLICK_LEVEL + CLICK_SLOPE * attraction.astype(np.float64))
    return np.asarray(MOST_CLICKS * curve)


def behave(
    attraction: Float32Array, need: Float32Array, uplift: Float64Array, rng: np.random.Generator
) -> Deeds:
    """What customers do with lists whose products draw them as `attraction` says and of which they
    need as much as `need` says, both ``(lists, places)``. `uplift` ``(lists,)`` is the factor less
    one by which a list is clicked more often than by these, at most 0.5."""
    shape = attraction.shape
    looked = rng.random(shape) < look_share(shape[1])
    clicked = looked & (rng.random(shape) < click_share(attraction) * (1 + uplift[:, None]))
    wanted = _logistic(CART_LEVEL + CART_SLOPE * attraction + CART_NEED * need)
    carted = clicked & (rng.random(shape) < wanted)
    chance = np.where(carted, CART_BOUGHT, BOUGHT_WITHOUT_CART * need)
    bought = clicked & (rng.random(shape) < chance)
    put_off = looked & ~clicked & (attraction < 0)
    places = np.arange(shape[1])
    click = 0.5 + places + rng.exponential(3, size=shape)
    cart = click + 5 + rng.exponential(60, size=shape)
    days = np.minimum(rng.exponential(LATER_DAYS, size=shape), LATEST_DAYS)
    later = rng.random(shape) < LATER
    purchase = cart + np.where(later, 86_400 * days, 20 + rng.exponential(300, size=shape))
    return Deeds(
        clicked=clicked,
        viewed=clicked & (rng.random(shape) < VIEWED),
        carted=carted,
        bought=bought,
        dismissed=put_off & (rng.random(shape) < DISMISSED),
        click_seconds=click,
        cart_seconds=cart,
        purchase_seconds=purchase,
    )


def _logistic(values: Float64Array | Float32Array) -> Float64Array:
    return np.asarray(1 / (1 + np.exp(-values)))
