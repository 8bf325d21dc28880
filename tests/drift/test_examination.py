from datetime import date

import numpy as np
import pytest

from recsys.config import load_config
from recsys.drift.checks import GAP_WEEKS, Check, sentence_keys
from recsys.drift.config import DriftConfig, HolidayCalendar
from recsys.drift.examination import Examination, Material, check_week, examine, overall
from recsys.drift.popularity import check_embedding
from recsys.settings import Settings
from tests.drift.shop import DEMAND, SHARES, WEEK, events

USUAL = 500
WEEKS = 30
NO_HOLIDAYS = HolidayCalendar()
OTHERS = [f"mỗi người một ý kiến {number}" for number in range(450)]


@pytest.fixture
def config(settings: Settings) -> DriftConfig:
    return load_config(settings, DriftConfig)


def examined(config: DriftConfig, weekly: list[int], **options: object) -> Examination:
    shop = events(weekly, **options)
    assert shop.comments is not None
    return examine(Material(shop, sentence_keys(shop.comments)), WEEK, config, NO_HOLIDAYS)


def raised(examination: Examination) -> set[str]:
    return {verdict.check.name for verdict in examination.verdicts if verdict.raised}


def check_of(examination: Examination, name: str) -> Check:
    return next(v.check for v in examination.verdicts if v.check.name == name)


def test_an_unchanged_shop_is_quiet(config: DriftConfig) -> None:
    for seed in range(5):
        examination = examined(config, [USUAL] * WEEKS, seed=seed)
        assert raised(examination) == set()
        assert overall(examination.verdicts) == "low"


def test_ten_points_fewer_five_stars_for_two_weeks_are_a_change_of_ratings(config) -> None:
    worse = (0.05, 0.03, 0.03, 0.04, 0.85)
    two = examined(config, [USUAL] * WEEKS, shares=[SHARES] * (WEEKS - 2) + [worse] * 2)
    assert raised(two) == {"rating"}
    one = examined(config, [USUAL] * WEEKS, shares=[SHARES] * (WEEKS - 1) + [worse])
    assert raised(one) == set()


def test_other_best_sellers_are_a_change_of_popularity(config) -> None:
    demand = DEMAND[::-1]
    examination = examined(config, [USUAL] * WEEKS, demands=[DEMAND] * (WEEKS - 2) + [demand] * 2)
    assert raised(examination) == {"popularity"}
    details = check_of(examination, "popularity").details
    assert "P199" in details["new_trending"]
    assert "P1" in details["dropped_out"]


def test_a_shop_without_reviews_has_collapsed_at_once(config) -> None:
    examination = examined(config, [USUAL] * (WEEKS - 1) + [0])
    assert raised(examination) == {"volume"}
    assert overall(examination.verdicts) == "high"


def test_a_third_less_has_to_last(config) -> None:
    assert raised(examined(config, [USUAL] * (WEEKS - 1) + [340])) == set()
    assert raised(examined(config, [USUAL] * (WEEKS - 2) + [340, 340])) == {"volume"}


def test_a_campaign_is_one_and_no_change_of_taste(config) -> None:
    # 450 reviews of their own, 1,500 with one sentence and one star more.
    campaign = OTHERS + ["mua ngay kẻo lỡ mọi người ơi"] * 1_500
    examination = examined(
        config, [USUAL] * (WEEKS - 1) + [1_950], comments=[[]] * (WEEKS - 1) + [campaign]
    )
    assert raised(examination) == {"volume", "campaign"}
    assert overall(examination.verdicts) == "medium"
    assert check_of(examination, "volume").details["pattern"] == "campaign"
    assert check_of(examination, "rating").details["sample_sizes"]["new"] == 450


def test_a_rush_for_one_product_is_a_product_burst(config) -> None:
    rush = DEMAND.copy()
    rush[7] = 3 * DEMAND.sum()
    examination = examined(
        config, [USUAL] * (WEEKS - 1) + [1_500], demands=[DEMAND] * (WEEKS - 1) + [rush]
    )
    assert "volume" in raised(examination)
    volume = check_of(examination, "volume").details
    assert volume["pattern"] == "product burst"
    assert volume["top_product"]["product_id"] == "P7"


def test_a_new_shop_has_not_enough_data(config) -> None:
    examination = examined(config, [USUAL] * 2)
    assert raised(examination) == set()
    assert check_of(examination, "volume").status == "insufficient_data"
    assert check_of(examination, "model").status == "insufficient_data"


def test_a_shop_without_any_events_is_examined(config) -> None:
    nothing = events([1]).between(0, 1)
    examination = examine(Material(nothing), WEEK, config, NO_HOLIDAYS)
    assert {verdict.check.status for verdict in examination.verdicts} == {"insufficient_data"}


def test_comments_that_turn_short_are_noticed_and_of_low_severity(config) -> None:
    short = [f"ok {number}" for number in range(500)]
    examination = examined(config, [USUAL] * WEEKS, comments=[[]] * (WEEKS - 2) + [short, short])
    assert "comment_length" in raised(examination)
    assert overall(examination.verdicts) == "low"


def test_the_evidence_of_a_week_is_the_same_a_week_later(config) -> None:
    """What makes a backfill reproducible: a week's checks never look at later weeks."""
    shop = events([USUAL] * WEEKS, seed=4)
    assert shop.comments is not None
    keys = sentence_keys(shop.comments)
    week = WEEK.before(1)
    early = shop.weeks <= week.number
    then = check_week(Material(shop.where(early), keys[early]), week, config, NO_HOLIDAYS)[1]
    now = check_week(Material(shop, keys), week, config, NO_HOLIDAYS)[1]
    assert [(c.name, c.p_value, c.effect) for c in then] == [
        (c.name, c.p_value, c.effect) for c in now
    ]


def test_a_fixed_reference_stays_where_the_model_stopped(config) -> None:
    shop = events([USUAL] * WEEKS)
    stop = WEEK.number - 8
    span, _ = check_week(Material(shop, reference_stop=stop), WEEK, config, NO_HOLIDAYS)
    assert span.reference_bounds == (stop - config.reference_weeks, stop)
    assert span.history_bounds[1] == WEEK.number - GAP_WEEKS


@pytest.mark.parametrize("changed", [False, True])
def test_another_kind_of_product_is_a_drift_of_embeddings(config, changed: bool) -> None:
    demand = DEMAND[::-1] if changed else DEMAND
    shop = events([USUAL] * WEEKS, demands=[DEMAND] * (WEEKS - 1) + [demand])
    rng = np.random.default_rng(0)
    vectors = rng.normal(0, 0.2, (200, 16)).astype(np.float32)
    numbers = np.array([int(product[1:]) for product in shop.product_ids])
    vectors = vectors[: len(shop.product_ids)]
    vectors[numbers < 100, 0] += 1  # the first hundred products are of one kind
    vectors[3] = np.nan  # a product without an embedding
    span, _ = check_week(Material(shop), WEEK, config, NO_HOLIDAYS)
    check = check_embedding(span, vectors)
    assert check.large is changed
    assert (check.p_value is not None and check.p_value < 0.01) is changed
    assert WEEK.first_day == date(2024, 5, 27)
