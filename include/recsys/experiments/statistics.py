"""What may be said of two sides of an experiment while it runs, however often somebody looks.

**Difference of two rates.** With the user as the unit: `numerator` x and `denominator` n of a unit
are its totals to date (clicks and lists; purchases and 1), R = sum x / sum n. Linearised (the delta
method), R - theta is the sum of the units' residuals x - R n over sum n, and with M = N_a N_b /
(N_a + N_b) of the sides' denominators

    V = M^2 (Q_a / N_a^2 + Q_b / N_b^2),     Q = sum of squared residuals,     se = sqrt(V) / M

V is the variance of M times the difference: it grows as lists come in, and is the sequence's clock.
The interval is the asymptotic confidence sequence with Robbins' normal mixture as its boundary
(Waudby-Smith, Arbour, Sinha, Kennedy, Ramdas: Time-uniform central limit theory and asymptotic
confidence sequences, Annals of Statistics 52(6), 2024, theorem 2.2 with the variance process of
theorem 2.5), narrowest where V is what was planned for:

    R_b - R_a  +-  se sqrt((1 + 1/r) log((1 + r) / alpha^2)),    r = eta V / V_planned
    eta = -2 log alpha + log(1 - 2 log alpha)                    (their equation for rho)

Customers return, so a unit's totals grow between two looks, and with them what its habits add. That
only makes looks more alike than independent increments would, and so crossings rarer (Slepian).

**Sample ratio.** The sequential multinomial test (Lindon, Malek: Anytime-valid inference for
multinomial count data, NeurIPS 2022): the Bayes factor of the counts of units against the shares,
with a Dirichlet prior around these. It is a martingale if the shares are right, so that it exceeds
1/alpha ever with probability alpha at most."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

from recsys.arrays import Float64Array, IntegerArray

ALPHA = 0.05
"""How often an experiment without a difference may find one, over all its looks together."""

RATIO_ALPHA = 0.01
"""The same of the sample-ratio check."""

MIN_ACTIVE_UNITS = 100
"""Units of each side that did what the metric counts, below which nothing is said: the sequence
holds asymptotically, and a mean of few large orders is far from a normal one."""

# Spread of the prior of the true shares around the intended ones: as of so many units. A split that
# matters is off by a few hundredths.
_PRIOR_UNITS = 2000.0


class Sums(NamedTuple):
    """All that is needed of one side's units, numbers or arrays of one shape: how many there are,
    how many of them have a numerator, and sums of x, n, x^2, x n, n^2."""

    units: Float64Array
    active: Float64Array
    x: Float64Array
    n: Float64Array
    xx: Float64Array
    xn: Float64Array
    nn: Float64Array


class Difference(NamedTuple):
    """Of the other side's rate over the control's: estimate, standard error, and the ends of the
    interval that holds at all looks together (infinite before there is enough to go by).
    `information` is the clock V."""

    control_rate: Float64Array
    other_rate: Float64Array
    value: Float64Array
    error: Float64Array
    low: Float64Array
    high: Float64Array
    information: Float64Array


def sums_of(x: NDArray[np.number], n: NDArray[np.number], axis: int = 0) -> Sums:
    """The sums of units whose numerators are `x` and denominators `n`, of equal shape, over `axis`.
    Units without a denominator do not count."""
    x, n = np.asarray(x, dtype=np.float64), np.asarray(n, dtype=np.float64)
    there = n > 0
    x = np.where(there, x, 0.0)
    summed = [there, there & (x > 0), x, n, x * x, x * n, n * n]
    return Sums(*(np.asarray(one.sum(axis=axis), dtype=np.float64) for one in summed))


def running_sums(
    units: IntegerArray, days: IntegerArray, x: Float64Array, n: Float64Array | None
) -> Sums:
    """The sums after each day 0, 1, ..., ``(days,)``, of totals to date: `units` are numbers from 0
    on, each with one cell a day at most; without `n` every unit counts as one from its first cell.

    A cell changes its unit's totals from what they were before, and the sums by the difference."""
    count = int(days.max()) + 1 if len(days) else 0
    order = np.lexsort((days, units))
    units, days = units[order], days[order]
    first = np.flatnonzero(np.diff(units, prepend=-1))
    lengths = np.diff(np.append(first, len(units)))

    def totals(values: Float64Array) -> tuple[Float64Array, Float64Array]:
        """Of each cell's unit, with the cell and before it."""
        after = np.cumsum(values)
        after -= np.repeat(after[first] - values[first], lengths)
        return after, after - values

    x_after, x_before = totals(x[order])
    if n is not None:
        n_after, n_before = totals(n[order])
    else:
        n_after, n_before = np.ones(len(units)), np.ones(len(units))
        n_before[first] = 0.0
    after = sums_of(x_after[:, None], n_after[:, None], axis=1)
    before = sums_of(x_before[:, None], n_before[:, None], axis=1)
    changes = (
        np.bincount(days, weights=one - other, minlength=count)
        for one, other in zip(after, before, strict=True)
    )
    return Sums(*(np.cumsum(change, dtype=np.float64) for change in changes))


def difference(
    control: Sums, other: Sums, planned_information: float | Float64Array, alpha: float = ALPHA
) -> Difference:
    """The difference of `other` against `control`, valid at every look with probability 1 - `alpha`
    at least. `planned_information` is V where the interval shall be narrowest."""
    with np.errstate(divide="ignore", invalid="ignore"):
        rates = [side.x / side.n for side in (control, other)]
        variance = sum(
            squared_residuals(side, rate) / side.n**2
            for side, rate in zip((control, other), rates, strict=True)
        )
        weight = control.n * other.n / (control.n + other.n)
        information = weight**2 * variance
        error = np.sqrt(variance)
        width = error * boundary(information / planned_information, alpha)
    value = rates[1] - rates[0]
    said = np.minimum(control.active, other.active) >= MIN_ACTIVE_UNITS
    said &= np.isfinite(width)
    low, high = np.where(said, value - width, -np.inf), np.where(said, value + width, np.inf)
    return Difference(rates[0], rates[1], value, error, low, high, information)


def squared_residuals(side: Sums, rate: Float64Array | float) -> Float64Array:
    """Sum over the units of (x - rate n)^2."""
    return np.asarray(np.maximum(side.xx - 2 * rate * side.xn + rate**2 * side.nn, 0.0))


def boundary(fraction: float | Float64Array, alpha: float = ALPHA) -> Float64Array:
    """Standard errors from the estimate to the end of the interval, where `fraction` is V over what
    was planned. At 1 it is 3.03 for 0.05; a test that looks once would have 1.96."""
    doubled = -2 * np.log(alpha)
    spread = np.asarray(fraction) * (doubled + np.log(1 + doubled))
    return np.asarray(np.sqrt((1 + 1 / spread) * (np.log1p(spread) + doubled)))


def ratio_evidence(counts: NDArray[np.number], shares: NDArray[np.floating]) -> Float64Array:
    """Logarithm of the Bayes factor against the `shares`, ``(..., sides)`` that add up to 1, after
    `counts` of units of the same shape. Above ``-log(RATIO_ALPHA)`` the split is another one."""
    counts, shares = np.asarray(counts, dtype=np.float64), np.asarray(shares, dtype=np.float64)
    prior = _PRIOR_UNITS * shares
    seen = gammaln(prior + counts) - gammaln(prior) - counts * np.log(shares)
    total = counts.sum(axis=-1)
    every = gammaln(_PRIOR_UNITS + total) - gammaln(_PRIOR_UNITS)
    return np.asarray(seen.sum(axis=-1) - every)
