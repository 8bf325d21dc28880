"""From scores to lists of many users at once, as the service shows them. NumPy alone."""

import numpy as np

from recsys.arrays import Float32Array, Int32Array, first_in_row


def best_lists(
    scores: Float32Array, families: Int32Array, length: int
) -> tuple[Int32Array, Float32Array, Int32Array]:
    """``(users, length)`` items and scores in order, one item of each family and none whose score
    is -inf, and ``(users,)`` how many count."""
    items = scores.shape[1]
    take = min(2 * length + 8, items)
    best = np.argpartition(scores, items - take, axis=1)[:, items - take :]
    values = np.take_along_axis(scores, best, axis=1)
    order = np.argsort(-values, axis=1, kind="stable")
    best, values = np.take_along_axis(best, order, 1), np.take_along_axis(values, order, 1)
    kept = first_in_row(families[best]) & (values > -np.inf)
    kept &= np.cumsum(kept, axis=1) <= length
    # What is kept moves to the front, in its order.
    front = np.argsort(~kept, axis=1, kind="stable")[:, :length]
    return (
        np.take_along_axis(best, front, 1).astype(np.int32),
        np.take_along_axis(values, front, 1).astype(np.float32),
        kept.sum(axis=1).astype(np.int32),
    )
