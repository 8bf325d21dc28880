"""Strategies, dry runs, refusals: what one refresh after another does."""

import json
from datetime import timedelta

import pytest

from recsys.data.sources import select_source
from recsys.data.versions import current_version, list_versions
from recsys.errors import SourceError
from recsys.refresh import RefreshError, ingest, publish, score_comments, workspace_of
from recsys.refresh.plan import Strategy
from tests.data.shop import END, PRODUCTS, interval, pairs, quarantined, refresh, row, write_shop

BASE = [
    row(f"u{number % 40}", number // 40, time=f"2025-01-{1 + number % 28:02}")
    for number in range(200)
]


@pytest.fixture
def shop(settings):
    write_shop(settings, BASE)
    assert refresh(settings)["strategy"] == Strategy.FULL
    return settings


def new_rows(count: int) -> list[str]:
    return [row(f"n{number}", number % 9, time="2025-02-02") for number in range(count)]


@pytest.mark.parametrize(
    ("new", "strategy"),
    [(0, "nothing_new"), (1, "incremental"), (100, "incremental"), (101, "full")],
)
def test_the_strategy_follows_from_the_number_of_new_interactions(shop, new, strategy):
    before = current_version(shop).version_id
    write_shop(shop, BASE + new_rows(new))
    summary = refresh(shop)
    assert (summary["strategy"], summary["changes"]["new"]) == (strategy, new)
    assert summary["new_version"] == (new > 0)
    assert (current_version(shop).version_id == before) == (new == 0)
    assert current_version(shop).manifest["strategy"] in (strategy, "full")


def test_force_full_builds_a_version_even_when_nothing_is_new(shop):
    before = current_version(shop)
    summary = refresh(shop, force_full=True)
    assert (summary["strategy"], summary["changes"]["new"]) == ("full", 0)
    after = current_version(shop)
    assert after.version_id != before.version_id
    assert after.interactions().equals(before.interactions())


def test_the_same_bad_rows_fill_the_quarantine_once(shop):
    write_shop(shop, [*BASE, row(rating=9), *new_rows(1)])
    refresh(shop)
    refresh(shop)
    assert len(quarantined(shop)) == 1
    write_shop(shop, [*BASE, row(rating=9), *new_rows(1), row(rating=8)])
    assert refresh(shop)["strategy"] == "nothing_new"
    assert len(quarantined(shop)) == 3


def everything(settings) -> set[tuple[str, float]]:
    return {(str(path), path.lstat().st_mtime_ns) for path in settings.home.rglob("*")}


def test_a_dry_run_shows_the_plan_and_touches_nothing(shop):
    write_shop(shop, [*BASE, *new_rows(5), row(rating=9)])
    (shop.staging / "events").mkdir(parents=True)
    (shop.staging / "events" / "1-a.jsonl").write_text(
        json.dumps(
            {"event_id": "e", "user_id": "s", "product_id": "1", "rating": 5,
             "timestamp": "2025-01-01"}
        ) + "\n"
    )  # fmt: skip
    shop.work.mkdir(exist_ok=True)
    refresh(shop, dry_run=True)
    before = everything(shop)
    summary = refresh(shop, dry_run=True)
    after = {entry for entry in everything(shop) if not entry[0].endswith("/data/work")}
    assert after == {entry for entry in before if not entry[0].endswith("/data/work")}
    assert (summary["strategy"], summary["changes"]["new"]) == ("incremental", 6)
    assert (summary["rows"]["quarantined"], summary["published"]) == (1, False)


def test_rows_that_vanish_from_the_source_lead_to_a_full_refresh_without_them(shop):
    write_shop(shop, BASE[1:] + new_rows(1))
    summary = refresh(shop)
    assert (summary["strategy"], summary["changes"]["vanished"]) == ("full", 1)
    assert summary["rows"]["accepted"] == len(pairs(shop))


def test_a_late_row_is_picked_up_by_the_next_run(shop):
    write_shop(shop, [*BASE, row("late", 1, time="2020-01-01")])
    assert refresh(shop, END + timedelta(days=1))["changes"]["new"] == 1
    assert ("late", "1", 5.0) in pairs(shop)


def test_a_changed_catalogue_alone_makes_a_version(shop):
    write_shop(shop, BASE, [*PRODUCTS, "1,Son mới,B,Son,1,x"])
    summary = refresh(shop)
    assert (summary["strategy"], summary["changes"]["new"]) == ("incremental", 0)
    products = current_version(shop).products().set_index("product_id")
    assert products.loc["1", "product_name"] == "Son mới"
    assert refresh(shop)["strategy"] == "nothing_new"


def test_a_truncated_source_publishes_nothing_unless_forced(shop):
    before = current_version(shop).version_id
    write_shop(shop, BASE[:50])
    with pytest.raises(RefreshError, match="max_shrink_fraction"):
        refresh(shop)
    assert current_version(shop).version_id == before
    assert refresh(shop, force_full=True)["rows"]["accepted"] <= 50


def test_a_column_that_is_gone_stops_the_run_unless_forced(shop):
    path = shop.raw / "viecomrec" / "data_reviews_purchase.csv"
    path.write_text("".join(f"{line.rsplit(',', 1)[0]}\n" for line in path.open()))
    with pytest.raises(RefreshError, match="the reviews had comment in version"):
        refresh(shop)
    assert refresh(shop, force_full=True)["strategy"] == "full"
    assert refresh(shop)["strategy"] == "nothing_new"


def test_too_many_bad_rows_publish_nothing_and_are_in_quarantine(shop):
    before = list_versions(shop)
    write_shop(shop, BASE + [row(f"b{number}", rating=9) for number in range(60)])
    with pytest.raises(RefreshError, match=r"23\.1% of the source's rows are bad"):
        refresh(shop)
    assert list_versions(shop) == before
    assert len(quarantined(shop)) == 60


def test_another_source_description_leads_to_a_full_refresh(shop):
    folder = shop.home / "config" / "sources"
    folder.mkdir(parents=True)
    text = (shop.config_file("sources/viecomrec.yaml")).read_text()
    (folder / "viecomrec.yaml").write_text(text.replace("category: type", "category: brand"))
    summary = refresh(shop)
    assert summary["strategy"] == "full"
    assert "changed" in summary["reason"]


def test_switching_to_another_shop_publishes_it_even_when_its_data_is_older(shop, tmp_path):
    (tmp_path / "r.csv").write_text(
        "ma_khach_hang,noi_dung_binh_luan,ngay_binh_luan,gio_binh_luan,so_sao,ma_san_pham\n"
        "7,Tốt,3/1/2020,18:31,5,345800013\n"
    )
    (tmp_path / "p.csv").write_text("ma_san_pham,ten_san_pham,gia_ban,mo_ta\n345800013,Son,1,x\n")
    select_source(shop, "hasaki", tmp_path / "r.csv", tmp_path / "p.csv")
    summary = refresh(shop, END - timedelta(days=1))
    assert (summary["source"], summary["strategy"]) == ("hasaki", "full")
    assert pairs(shop) == {("7", "345800013", 5.0)}


def test_publishing_twice_after_a_retry_changes_nothing(shop):
    write_shop(shop, BASE + new_rows(1))
    work = workspace_of(shop, "scheduled__2025-03-01T00:00:00+00:00")
    for _ in range(2):
        ingest(shop, work, interval())
    for _ in range(2):
        score_comments(shop, work)
    assert publish(shop, work)["version_id"] == publish(shop, work)["version_id"]
    assert len(list_versions(shop)) == 2


def test_hasaki_is_read_as_it_is(settings, shared_data):
    folder = shared_data / "hasaki"
    select_source(settings, "hasaki", folder / "reviews.csv", folder / "products.csv")
    summary = refresh(settings, END)
    assert (summary["rows"]["read"], summary["rows"]["valid"]) == (21_575, 21_572)
    rejected = quarantined(settings)
    assert sorted(zip(rejected["row"], rejected["reason"], strict=True)) == [
        (17_725, "the rating is outside 1-5"),
        (18_380, "the time cannot be read"),
        (21_321, "the rating is outside 1-5"),
    ]
    assert "-0001" in rejected.loc[rejected["row"] == 18_380, "raw"].iloc[0]
    assert (summary["rows"]["accepted"], summary["rows"]["superseded"]) == (21_221, 351)
    version = current_version(settings)
    stats = version.stats()
    assert (stats["users"], stats["products"], stats["events"]) == (4_485, 1_200, 7_891)
    rows = version.interactions()
    copied = rows.groupby("event_id")["split"].nunique()
    assert (copied == 1).all()
    assert rows["timestamp"].max().isoformat() == "2024-11-07T06:35:00+00:00"


def test_a_missing_file_is_named_before_anything_starts(settings):
    with pytest.raises(SourceError, match=r"data_reviews_purchase\.csv: the file does not exist"):
        refresh(settings)
