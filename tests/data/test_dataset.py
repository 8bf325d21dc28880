"""A version is the same whether it is built at once or of the parts of its users."""

import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys import schema
from recsys.data.dataset import Dataset, build_part, join_parts
from recsys.data.keys import USER_NUMBER, add_keys, hash_texts, latest_rows

CATALOGUE = pd.DataFrame(
    {
        schema.PRODUCT: ["p1", "p2", "unsold"],
        schema.PRODUCT_NAME: ["Kem dưỡng Cocoon", "Son môi Lì", "Mặt nạ đất sét"],
        **{name: ["", "", ""] for name in (schema.BRAND, schema.CATEGORY, schema.DESCRIPTION)},
        schema.PRICE: [1.0, 2.0, 3.0],
    }
)
REVIEW = st.tuples(
    st.integers(0, 7), st.integers(0, 5), st.integers(1, 5), st.integers(0, 3), st.integers(0, 1)
)


def view_of(reviews: list[tuple[int, ...]]) -> pd.DataFrame:
    user, product, rating, day, text = (np.array(column) for column in zip(*reviews, strict=True))
    rows = pd.DataFrame(
        {
            schema.USER: pd.Series([f"u{number}" for number in user], dtype="str"),
            schema.PRODUCT: pd.Series([f"p{number}" for number in product], dtype="str"),
            schema.RATING: rating.astype(np.float32),
            schema.TIMESTAMP: pd.Series(day * 86_400_000_000)
            .astype("datetime64[us]")
            .dt.tz_localize("UTC"),
            schema.COMMENT: pd.Series([["", "tốt"][number] for number in text], dtype="str"),
        }
    )
    texts = (schema.USER, schema.PRODUCT, schema.COMMENT)
    add_keys(rows, *(hash_texts(rows[name]) for name in texts))
    view = latest_rows(rows)
    view[schema.COMMENT_QUALITY] = np.linspace(0, 1, len(view), dtype=np.float32)
    return view


def in_parts(view: pd.DataFrame, ends: list[int]) -> Dataset:
    users = int(view[USER_NUMBER].max()) + 1
    edges = sorted({0, users, *(end % users for end in ends)})
    parts = []
    for first, last in itertools.pairwise(edges):
        rows = view[view[USER_NUMBER].between(first, last - 1)].reset_index(drop=True)
        rows[USER_NUMBER] -= np.int32(first)
        parts.append(build_part(rows))
    interactions, user_rows, entries = zip(*parts, strict=True)
    return join_parts(
        pd.concat(interactions, ignore_index=True),
        pd.concat(user_rows, ignore_index=True),
        entries,
        CATALOGUE,
    )


@settings(max_examples=60)
@given(
    reviews=st.lists(REVIEW, min_size=1, max_size=60),
    ends=st.lists(st.integers(0, 100), max_size=4),
)
def test_parts_of_users_make_the_same_version_as_all_at_once(reviews, ends):
    view = view_of(reviews)
    whole, joined = in_parts(view, []), in_parts(view, ends)
    pd.testing.assert_frame_equal(joined.interactions, whole.interactions)
    pd.testing.assert_frame_equal(joined.user_metadata, whole.user_metadata)
    pd.testing.assert_frame_equal(joined.products, whole.products)
    assert joined.user_ids.equals(whole.user_ids)
    assert joined.item_ids == whole.item_ids
    assert (joined.matrix != whole.matrix).nnz == 0
    np.testing.assert_array_equal(joined.popularity, whole.popularity)
    assert joined.stats["mean_comment_quality"] == pytest.approx(
        whole.stats["mean_comment_quality"], abs=1e-6
    )
    without_mean = {"mean_comment_quality": None}
    assert joined.stats | without_mean == whole.stats | without_mean
