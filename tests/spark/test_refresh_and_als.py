"""A refresh and ALS on Spark give what they give without it.

In one file, so that one cluster of one process serves them.
"""

import gzip
import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from recsys.arrays import Float32Array
from recsys.data.config import Engine
from recsys.data.sample import write_sample_shop
from recsys.data.staging import append_events
from recsys.data.versions import PublishedVersion, current_version
from recsys.errors import SourceError
from recsys.evaluation.leave_one_out import LeaveOneOut, read_leave_one_out
from recsys.evaluation.metrics import metrics_per_user, summarise
from recsys.evaluation.ranking import rank_targets
from recsys.ids import IdRules
from recsys.models.als import Als, AlsParameters
from recsys.models.histories import take_users
from recsys.models.model_types import create_model
from recsys.privacy import ask_to_forget
from recsys.refresh import RefreshError, ingest, run_refresh, workspace_of
from recsys.settings import Settings
from recsys.spark import refresh as spark_refresh
from recsys.spark.als import als_trainer
from recsys.spark.session import SparkConfig, spark_session
from recsys.training.job import train_model
from tests.data.shop import END, interval, quarantined, refresh, row, write_shop
from tests.data.test_availability import write_products
from tests.models.shop import (
    GROUPS,
    ITEMS,
    START,
    publish_shop,
    taste_histories,
    taste_interactions,
)
from tests.spark.cluster import use_spark

pytestmark = [pytest.mark.boots, pytest.mark.usefixtures("spark")]


@pytest.fixture
def both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Settings, Settings]]:
    """Two empty state roots: without Spark, and with it in many small pieces and ranges."""
    monkeypatch.setattr(spark_refresh, "PIECE_BYTES", 20_000)
    plain, spark = Settings(tmp_path / "plain"), Settings(tmp_path / "spark[a]{b}")  # not a pattern
    use_spark(spark)
    yield plain, spark
    assert not [*spark.work.glob("*-spark"), *spark.work.glob("*-shelf")]


def assert_same_version(spark: Settings, plain: Settings) -> PublishedVersion:
    ours, theirs = current_version(spark), current_version(plain)
    assert (ours.manifest["engine"], theirs.manifest["engine"]) == ("spark", "pandas")
    pd.testing.assert_frame_equal(ours.interactions(), theirs.interactions())
    pd.testing.assert_frame_equal(ours.user_metadata(), theirs.user_metadata())
    pd.testing.assert_frame_equal(ours.products(), theirs.products())
    assert ours.mappings() == theirs.mappings()
    assert (ours.matrix() != theirs.matrix()).nnz == 0
    np.testing.assert_array_equal(ours.popularity(), theirs.popularity())
    np.testing.assert_array_equal(ours.recent_sales(), theirs.recent_sales())
    assert ours.stats() == theirs.stats()
    for name in ("rows", "quarantined_by_reason", "columns", "inputs", "catalogue", "comments"):
        given, expected = (version.manifest[name] for version in (ours, theirs))
        if name == "comments":
            given, expected = ({**found, "seconds": 0} for found in (given, expected))
        assert given == expected, name
    keys = [np.load(version.path / "row_keys.npy") for version in (ours, theirs)]
    np.testing.assert_array_equal(*keys)
    ours.verify()
    return ours


def test_hasaki_is_the_same_on_both_engines(both, shared_data, monkeypatch):
    monkeypatch.setattr(spark_refresh, "PIECE_BYTES", 1_000_000)
    for settings in both:
        (settings.raw).mkdir(parents=True)
        (settings.raw / "hasaki").symlink_to(shared_data / "hasaki")
        (settings.home / "data" / "source.json").write_text(json.dumps({"source": "hasaki"}))
        run_refresh(settings, interval())
    plain, spark = both
    version = assert_same_version(spark, plain)
    assert len(version.interactions()) > 15_000
    assert_same_quarantine(spark, plain)


def assert_same_quarantine(spark: Settings, plain: Settings) -> None:
    theirs = quarantined(plain)
    ours = quarantined(spark)
    moved = ours["file"].str.replace(str(spark.home), str(plain.home), regex=False)
    pd.testing.assert_frame_equal(ours.assign(file=moved), theirs)


DIRT = [
    row(rating=9),
    row(product=""),
    row(time="yesterday"),
    "too,few",
    row(comment='"two\nlines, one comma"'),
    row(user="late", time="2025-03-05 10:00:00"),
]


def dirty_rows() -> list[str]:
    rows = [
        row(f"u{number % 211}", number % 7, 1 + number % 5, f"2025-01-{1 + number % 28:02} 08:00")
        for number in range(3_000)
    ]
    for number, bad in enumerate(DIRT * 4):
        rows.insert(97 * number, bad)
    return rows


@pytest.mark.parametrize("titles", ["", "Báo cáo\n\n"])
def test_dirt_is_found_at_the_same_rows(both, titles):
    for settings in both:
        write_shop(settings, dirty_rows())
        path = settings.raw / "viecomrec" / "data_reviews_purchase.csv"
        path.write_text(titles + path.read_text())
        refresh(settings)
    plain, spark = both
    assert_same_version(spark, plain)
    assert_same_quarantine(spark, plain)
    assert len(quarantined(plain)) == 16


def test_who_is_forgotten_is_in_neither(both):
    for settings in both:
        write_shop(settings, [*dirty_rows(), "u3,torn,5", row("u3", rating=9)])
        refresh(settings)
        ask_to_forget(settings, ["u3", "u4", "u210"], "lan", IdRules())
        done = refresh(settings)
        assert done["strategy"] == "full"
        assert done["rows"]["forgotten"] == 15 + 15 + 14 + 1  # who is torn may be another
    plain, spark = both
    users = set(assert_same_version(spark, plain).interactions()["user_id"])
    assert users == {f"u{number}" for number in range(211)} - {"u3", "u4", "u210"} | {"u1"}
    assert_same_quarantine(spark, plain)


def test_signals_and_the_split_beside_them_are_the_same(both):
    kinds = ("purchase", "purchase", "cart", "view", "dismiss")
    events = [
        {
            "event_id": f"e{number % 900}",
            "kind": kinds[number % 5],
            "user_id": f"u{number % 223}",
            "product_id": number % 9,
            "timestamp": END - timedelta(hours=1 + number % 1_400),
        }
        for number in range(1_000)
    ]
    for settings in both:
        write_shop(settings, dirty_rows())
        append_events(settings, events)
        refresh(settings)
    plain, spark = both
    version = assert_same_version(spark, plain)
    found = current_version(plain)
    assert len(found.signals()) == 900
    assert {*found.signals()["split"]} == {"train", "validation", "test", "excluded"}
    assert version.manifest["signals"] == found.manifest["signals"]
    name = "signals.parquet"
    assert (version.path / name).read_bytes() == (found.path / name).read_bytes()


def test_what_is_sold_is_the_same(both):
    products = [
        {
            "stock": str(number - 2),
            "status": ("Đang bán", "Ẩn")[number % 5 == 4],
            "available_from": ("", "2025-02-01")[number % 2],
            "tags": ("Tết,Mới", "", "da dầu")[number % 3],
        }
        for number in range(9)
    ]
    for settings in both:
        write_products(settings, products)
        append_events(
            settings,
            [{"event_id": "e", "kind": "purchase", "user_id": "u1", "product_id": 8,
              "timestamp": END - timedelta(days=40)}],
        )  # fmt: skip
        refresh(settings)
    plain, spark = both
    version = assert_same_version(spark, plain)
    assert version.products()["available"].tolist() == [False] * 3 + [True, False] + [True] * 4
    for name in ("products.parquet", "shown_products.jsonl"):
        expected = (current_version(plain).path / name).read_bytes()
        assert (version.path / name).read_bytes() == expected


def test_a_quote_that_never_closes_costs_its_own_row(both):
    rows = dirty_rows()
    rows.insert(1_500, row(comment='"never closed'))
    for settings in both:
        write_shop(settings, rows)
        refresh(settings)
    plain, spark = both
    pd.testing.assert_frame_equal(
        current_version(spark).interactions(), current_version(plain).interactions()
    )
    reasons = [set(quarantined(settings)["reason"]) for settings in both]
    assert reasons[0] == reasons[1]


@pytest.mark.parametrize("kind", ["csv.gz", "jsonl", "parquet"])
def test_every_kind_of_file_is_read_the_same(both, kind):
    for settings in both:
        shop = write_sample_shop(settings, reviews=3_000, until=END.date())
        frame = pd.read_csv(shop.reviews_path, keep_default_na=False)
        path = shop.reviews_path.with_name(f"reviews.{kind}")
        if kind == "parquet":
            frame.to_parquet(path, row_group_size=500)
        elif kind == "jsonl":
            frame.to_json(path, orient="records", lines=True, force_ascii=False)
            path.write_text("\n".join(["", "{broken", path.read_text()]))
        else:
            path.write_bytes(gzip.compress(shop.reviews_path.read_bytes()))
        chosen = {"source": "viecomrec", "reviews": str(path), "products": str(shop.products_path)}
        (settings.home / "data" / "source.json").write_text(json.dumps(chosen))
        run_refresh(settings, interval())
    plain, spark = both
    assert_same_version(spark, plain)
    assert_same_quarantine(spark, plain)


def test_staged_events_and_a_second_run_are_the_same(both):
    for settings in both:
        write_shop(settings, dirty_rows())
        refresh(settings)
        append_events(
            settings,
            [
                {"event_id": f"e{number}", "user_id": f"u{number}", "product_id": "8",
                 "rating": 5, "timestamp": "2025-02-01T10:00:00+07:00"}
                for number in (1, 2, 3, 3)
            ],
        )  # fmt: skip
    strategies = [refresh(settings, END + timedelta(days=1)) for settings in both]
    plain, spark = both
    assert_same_version(spark, plain)
    assert [summary["strategy"] for summary in strategies] == ["incremental"] * 2
    assert strategies[0]["changes"]["new"] == strategies[1]["changes"]["new"] == 3
    assert refresh(spark, END + timedelta(days=1))["strategy"] == "nothing_new"


def test_a_step_can_be_repeated(both):
    plain, spark = both
    for settings in both:
        write_shop(settings, dirty_rows())
    work = workspace_of(spark, "repeated")
    first, second = (ingest(spark, work, interval())["rows"] for _ in range(2))
    refresh(plain)
    assert first == second
    assert first["accepted"] == len(current_version(plain).interactions())


def test_an_unreadable_file_is_named(both):
    _, spark = both
    write_shop(spark, dirty_rows())
    path = spark.raw / "viecomrec" / "data_reviews_purchase.csv"
    path.write_text(path.read_text().replace("rating", "stars", 1))
    with pytest.raises(SourceError, match=r"purchase\.csv: there is no column 'rating'"):
        refresh(spark)


def test_too_much_dirt_publishes_nothing(both):
    _, spark = both
    write_shop(spark, [*dirty_rows(), *[row(rating=0)] * 2_000])
    with pytest.raises(RefreshError, match="max_invalid_fraction"):
        refresh(spark)
    assert not spark.processed.exists()
    assert len(quarantined(spark)) == 2_016


def test_an_inner_session_is_the_outer_one(tmp_path):
    with spark_session(SparkConfig(), tmp_path / "inner") as one:
        assert not (tmp_path / "inner").exists()
        with spark_session(SparkConfig(), tmp_path / "inner") as two:
            assert one is two
    assert one.range(3).count() == 3


# Of two lists that differ by their random start alone, Hasaki's users share .53 of ten products.
SHARED_BY_TWO_STARTS = 0.45


def test_a_group_that_somebody_buys_from_ranks_first(settings):
    histories = taste_histories()
    with als_trainer(Engine.SPARK, settings) as trainer:
        model = Als(AlsParameters(factors=8, starts=2, iterations=5)).trained_by(trainer)
        model.fit(histories, ITEMS + 1)  # nobody bought the last one
    assert model.item_vectors.shape == (ITEMS + 1, 16)
    assert not model.item_vectors[ITEMS].any()
    scores = model.score(take_users(histories, np.arange(60)), START)
    top = np.argsort(-scores, axis=1)[:, :7]
    assert (top % GROUPS == (np.arange(60) % GROUPS)[:, None]).mean() > 0.8
    assert not list(settings.work.iterdir())


def test_hasaki_is_as_well_served_as_by_implicit(settings, shared_data):
    data = hasaki(settings, shared_data)
    chosen = AlsParameters(factors=16, regularization=10.0, fold_in_decay=0.8, starts=2)
    items = len(data.item_ids)
    ours = Als(chosen, seed=1).fit(data.training_and_validation, items)
    with als_trainer(Engine.SPARK, settings) as trainer:
        theirs = Als(chosen, seed=1).trained_by(trainer).fit(data.training_and_validation, items)
    figures = summarise({"recall": recall(ours, data)})
    assert recall(theirs, data).mean() >= figures["recall_low"]
    shared = [
        len(set(one) & set(other)) / 10
        for one, other in zip(lists(ours, data), lists(theirs, data), strict=True)
    ]
    assert np.mean(shared) > SHARED_BY_TWO_STARTS


def hasaki(settings: Settings, shared_data) -> LeaveOneOut:
    settings.raw.mkdir(parents=True)
    (settings.raw / "hasaki").symlink_to(shared_data / "hasaki")
    (settings.home / "data" / "source.json").write_text(json.dumps({"source": "hasaki"}))
    run_refresh(settings, interval())
    return read_leave_one_out(current_version(settings))


def recall(model: Als, data: LeaveOneOut) -> Float32Array:
    return metrics_per_user(rank_targets(model, data.test))["recall_at_10"]


def lists(model: Als, data: LeaveOneOut) -> Float32Array:
    some = take_users(data.everything, np.arange(0, data.everything.users, 10))
    return np.argsort(-model.score(some, 0), axis=1)[:, :10]


def test_training_with_the_engine_registers_a_model_like_any_other(settings):
    use_spark(settings)
    own = settings.home / "config" / "training.yaml"
    text = (
        own.read_text()
        .replace("trials: 25", "trials: 1")
        .replace("parameters: {}", "parameters: {als: {starts: 1, iterations: 3, factors: 8}}")
    )
    assert "starts: 1" in text
    own.write_text(text)
    version_id = publish_shop(settings, taste_interactions())
    summary = train_model(settings, "als", version_id)
    folder = settings.artifacts / "als" / summary["model_id"]
    assert json.loads((folder / "evaluation.json").read_text())["training"]["engine"] == "spark"
    assert summary["recall_at_10"] > 0.2
    assert Als.load(folder / "model").item_vectors.shape == (ITEMS, 8)


def test_the_als_of_a_hybrid_is_trained_by_the_same(settings):
    asked = []

    def trainer(matrix, parameters, seed):
        asked.append((matrix.shape, parameters.factors, seed))
        return np.ones((matrix.shape[1], parameters.factors), dtype=np.float32)

    histories = taste_histories()
    parameters = {"als": {"factors": 4, "starts": 2}}
    create_model("hybrid", parameters, 7, trainer).fit(histories, ITEMS)
    assert asked == [((histories.users, ITEMS), 4, seed) for seed in (7, 8)]
