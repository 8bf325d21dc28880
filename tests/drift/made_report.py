"""A week of which every check of drift has something to say."""

import dataclasses
from datetime import timedelta
from typing import Any

import numpy as np

from recsys.drift.checks import sentence_keys
from recsys.drift.config import DriftConfig, HolidayCalendar
from recsys.drift.examination import Material, examine
from recsys.drift.kinds import weekly_kinds
from recsys.drift.model import Prediction, model_before
from recsys.drift.report import build_report
from recsys.settings import Settings
from tests.drift.shop import DEMAND, MONDAY, SHARES, WEEK, ZONE, events
from tests.drift.test_kinds import LONG_AGO, USUAL, done
from tests.drift.test_model import purchases, register_model

WEEKS = 16
WORSE = (0.05, 0.03, 0.03, 0.04, 0.85)
OTHERS = [f"mỗi người một ý kiến {number}" for number in range(400)]


def material(settings: Settings, *, weeks_of_change: int) -> Material:
    """Of a shop whose stars, best sellers, kinds of products and buyers' groups have changed for so
    many weeks, and whose last week had a campaign."""
    steady, changed = WEEKS - weeks_of_change, weeks_of_change
    campaign = OTHERS + ["mua ngay kẻo lỡ mọi người ơi"] * 600
    shop = events(
        [500] * (WEEKS - 1) + [1_000],
        shares=[SHARES] * steady + [WORSE] * changed,
        demands=[DEMAND] * steady + [DEMAND[::-1]] * changed,
        comments=[[]] * (WEEKS - 1) + [campaign],
    )
    assert shop.comments is not None
    frame = purchases(moved=changed)
    register_model(settings, frame, MONDAY - timedelta(weeks=7), "als_1")
    past = model_before(settings, WEEK.before(1).start)
    assert past is not None
    places = np.array([int(name[1:]) for name in shop.product_ids])
    vectors = np.zeros((len(places), 2), dtype=np.float32)
    vectors[:, 0], vectors[:, 1] = places < 100, places >= 100
    mixes = [USUAL] * steady + [(0.3, 0.15, 0.3, 0.24, 0.01)] * changed
    return Material(
        shop,
        keys=sentence_keys(shop.comments),
        vectors=vectors,
        prediction=Prediction(past, frame),
        kinds=weekly_kinds(done(mixes), ZONE, LONG_AGO),
    )


def made_report(material: Material, *, ends_early: bool = False) -> dict[str, Any]:
    """The report about the last week; `ends_early`: of data that end before it."""
    calendar = HolidayCalendar()
    if ends_early:
        material = dataclasses.replace(material, ends=WEEK.start)
    names = {f"P{number}": f"Sơn <dưỡng> {number}" for number in range(150)}
    return build_report(
        examine(material, WEEK, DriftConfig(), calendar),
        generated_at=MONDAY.isoformat(),
        data={
            "version_id": "20240603T020000Z-a",
            "as_of": (WEEK.start if ends_early else MONDAY).isoformat(),
            "covers_window": not ends_early,
        },
        reference_kind="moving",
        false_discovery_rate=0.05,
        names=names,
        calendar=calendar,
        events=material.events,
    )
