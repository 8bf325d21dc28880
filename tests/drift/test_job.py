import json
import re
import shutil
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pandas as pd
import pytest

from recsys.alerting import AlertManager
from recsys.drift.job import alert_on_drift, detect_drift, reason_to_retrain
from recsys.errors import InputError
from recsys.refresh.job import run_refresh
from recsys.schedule import DataInterval
from recsys.settings import Settings
from tests.drift.shop import MONDAY, interactions

WEEKLY = [400] * 30
DOCUMENTED = {
    "generated_at",
    "rating_drift",
    "popularity_drift",
    "interaction_drift",
    "overall_severity",
    "recommendations",
}


def publish(settings: Settings, frame: pd.DataFrame, days_after: int = 0) -> None:
    folder = settings.raw / "viecomrec"
    folder.mkdir(parents=True, exist_ok=True)
    local = frame["timestamp"].dt.tz_convert(MONDAY.tzinfo).dt.strftime("%Y-%m-%d %H:%M:%S")
    frame.rename(columns={"timestamp": "cmt_date"}).assign(cmt_date=local)[
        ["user_id", "product_id", "rating", "cmt_date", "comment"]
    ].to_csv(folder / "data_reviews_purchase.csv", index=False)
    products = pd.DataFrame({"product_id": frame["product_id"].unique()})
    products.assign(
        product_name="Kem dưỡng <3 & hơn " + products["product_id"],
        brand="B",
        type="Kem",
        price=1000,
        processed_description="",
    ).to_csv(folder / "data_product.csv", index=False)
    run_refresh(settings, interval(days_after))


def interval(days_after: int = 0) -> DataInterval:
    end = MONDAY + timedelta(days=days_after, hours=9)
    return DataInterval(end - timedelta(days=7), end)


def report_of(settings: Settings, summary: dict[str, object]) -> dict:
    return json.loads((settings.home / str(summary["report"])).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A shop whose last week brought one review in ten of what it used to."""
    settings = Settings(tmp_path_factory.mktemp("drift") / "home")
    publish(settings, interactions([*WEEKLY[:-1], 40]))
    return settings


@pytest.fixture
def shop(published: Settings) -> Iterator[Settings]:
    yield published
    shutil.rmtree(published.reports, ignore_errors=True)


def test_the_report_has_the_documented_keys_and_is_plain_json(shop: Settings) -> None:
    summary = detect_drift(shop, interval())
    assert summary["report"] == "reports/drift/drift_report_20240603.json"
    report = report_of(shop, summary)
    assert set(report) >= DOCUMENTED
    assert {"drift_detected", "severity", "max_difference"} <= set(report["rating_drift"])
    assert {"shift_detected", "jaccard_similarity", "new_trending", "dropped_out"} <= set(
        report["popularity_drift"]
    )
    assert {"drift_detected", "volume_change_pct", "user_activity_change_pct", "new_users_pct"} <= (
        set(report["interaction_drift"])
    )
    assert report["windows"]["new"]["start"] == "2024-05-27T00:00:00+07:00"
    assert report["windows"]["new"]["end"] == "2024-06-03T00:00:00+07:00"
    json.dumps(summary, allow_nan=False)


def test_a_collapse_is_of_high_severity_and_says_so(shop: Settings) -> None:
    summary = detect_drift(shop, interval())
    report = report_of(shop, summary)
    assert summary["overall_severity"] == "high"
    assert summary["raised"] == ["volume"]
    assert report["interaction_drift"]["volume_change_pct"] == pytest.approx(-90, abs=3)
    assert report["rating_drift"]["status"] == "insufficient_data"
    assert "40 reviews where" in report["recommendations"][0]


def test_a_backfilled_week_does_not_know_what_came_after(shop: Settings) -> None:
    summary = detect_drift(shop, interval(days_after=-7))
    assert summary["report_date"] == "20240527"
    assert summary["overall_severity"] == "low"


def test_the_same_data_give_the_same_report_without_any_earlier_one(shop: Settings) -> None:
    first = report_of(shop, detect_drift(shop, interval()))
    shutil.rmtree(shop.reports)
    second = report_of(shop, detect_drift(shop, interval()))
    del first["generated_at"], second["generated_at"]
    assert first == second


def test_any_moment_of_the_next_week_means_the_same_report(shop: Settings) -> None:
    assert detect_drift(shop, interval(days_after=5))["report_date"] == "20240603"


def test_data_that_end_before_the_week_does_are_a_warning(shop: Settings) -> None:
    summary = detect_drift(shop, interval(days_after=7))
    report = report_of(shop, summary)
    assert report["data"]["covers_window"] is False
    assert "data_refresh" in report["recommendations"][0]
    assert summary["rows"] == 0
    # That nothing was read of the week is no news about the shop.
    assert summary["overall_severity"] == "not judged"
    assert set(summary["not_judged"]) >= {"volume", "campaign", "rating"}
    assert report["interaction_drift"]["volume"]["severity"] == "not judged"
    assert reason_to_retrain(shop, summary, MONDAY) is None


def test_a_page_leads_to_the_weeks_before_it_and_to_the_other_language(shop: Settings) -> None:
    for days in (-14, -7, 0):
        summary = detect_drift(shop, interval(days))
    plain = (shop.home / summary["page"]).read_text(encoding="utf-8")
    links = re.findall(r'href="(drift_report[^"]+)"', plain)
    name = "drift_report_20240603"
    assert links == [f"{name}.html", f"{name}.en.html"] + [
        f"drift_report_{day}.html" for day in ("20240527", "20240520")
    ]
    other = (shop.home / summary["page"]).with_suffix(".en.html").read_text(encoding="utf-8")
    assert "drift_report_20240527.en.html" in other
    assert "20 May 2024 – 26 May 2024" in other


def test_the_page_stands_alone_and_shows_names_as_text(shop: Settings) -> None:
    summary = detect_drift(shop, interval())
    for name in (summary["page"], str(summary["page"]).replace(".html", ".en.html")):
        page = (shop.home / name).read_text(encoding="utf-8")
        assert not re.search(r"<script|<img|https?:|<3 & hơn", page)
        assert "<svg" in page


def test_the_length_of_the_reference_can_be_chosen(shop: Settings) -> None:
    report = report_of(shop, detect_drift(shop, interval(), reference_days=50))
    assert report["windows"]["reference"]["start"] == "2024-03-25T00:00:00+07:00"
    with pytest.raises(InputError, match="reference_days: 7 is too short"):
        detect_drift(shop, interval(), reference_days=7)


def test_without_a_published_version_the_job_says_what_to_run(settings: Settings) -> None:
    with pytest.raises(InputError, match="data_refresh"):
        detect_drift(settings, interval())


def test_high_severity_alerts_once_and_asks_for_one_training(shop: Settings) -> None:
    summary = detect_drift(shop, interval())
    alerted = alert_on_drift(shop, summary)
    assert alerted["alert"] == "critical"
    assert alerted["channels"]["log"] == "sent"
    log = (shop.logs / "service" / "alerts.log").read_text(encoding="utf-8")
    assert "data_drift" in log
    assert "volume" in log

    reason = reason_to_retrain(shop, summary, MONDAY)
    assert reason is not None
    assert "20240603" in reason
    assert "reports/drift/drift_report_20240603.json" in reason
    # A repeated task keeps its answer; the next report waits for the cool-down.
    assert reason_to_retrain(shop, summary, MONDAY + timedelta(hours=1)) == reason
    following = summary | {"report_date": "20240610"}
    assert reason_to_retrain(shop, following, MONDAY + timedelta(days=6)) is None
    assert reason_to_retrain(shop, following, MONDAY + timedelta(days=7)) is not None


def test_what_was_not_judged_is_told_when_an_alert_is_over(shop: Settings) -> None:
    alert_on_drift(shop, detect_drift(shop, interval()))
    alert_on_drift(shop, detect_drift(shop, interval(days_after=-7)))
    log = (shop.logs / "service" / "alerts.log").read_text(encoding="utf-8")
    last = log.splitlines()[-1]
    assert "Nothing that was judged is raised in the drift report 20240527; not judged: " in last
    assert "model" in last


def test_an_alert_stands_until_what_it_is_about_can_be_judged_again(shop: Settings) -> None:
    summary = detect_drift(shop, interval())
    alert_on_drift(shop, summary)
    quiet = summary | {"overall_severity": "low", "raised": [], "recommendations": []}

    def stands() -> bool:
        alerts = (row for row in AlertManager(shop).recent() if not row["alert"].resolved)
        return next(alerts)["resolved_at"] is None

    alert_on_drift(shop, quiet | {"not_judged": ["volume"]})  # no review came any more
    assert stands()
    alert_on_drift(shop, quiet | {"not_judged": ["model"]})
    assert not stands()


def test_a_report_of_low_severity_does_nothing(shop: Settings) -> None:
    summary = detect_drift(shop, interval(days_after=-7))
    assert alert_on_drift(shop, summary)["alert"] is None
    assert reason_to_retrain(shop, summary, MONDAY) is None


def test_medium_severity_warns_and_trains_nothing(shop: Settings) -> None:
    summary = detect_drift(shop, interval()) | {"overall_severity": "medium"}
    assert alert_on_drift(shop, summary)["alert"] == "warning"
    assert reason_to_retrain(shop, summary, MONDAY) is None


def test_training_because_of_drift_can_be_switched_off(shop: Settings, tmp_path: Path) -> None:
    summary = detect_drift(shop, interval())
    settings = Settings(tmp_path)
    (tmp_path / "config").mkdir()
    text = shop.config_file("drift.yaml").read_text(encoding="utf-8")
    (tmp_path / "config" / "drift.yaml").write_text(
        text.replace("retrain_on_drift: true", "retrain_on_drift: false"), encoding="utf-8"
    )
    assert reason_to_retrain(settings, summary, MONDAY) is None


def test_a_week_that_nothing_could_be_judged_of_is_not_quiet(shop: Settings) -> None:
    alert_on_drift(shop, detect_drift(shop, interval()))
    summary = detect_drift(shop, interval(2 * 365))
    assert summary["overall_severity"] == "not judged"
    assert summary["events"] == 0
    assert not any("no action is needed" in one for one in summary["recommendations"])
    assert any("look whether they still arrive" in one for one in summary["recommendations"])
    page = (shop.home / str(summary["page"])).read_text(encoding="utf-8")
    assert "Tuần này có quá ít dữ liệu để nói bất cứ điều gì" in page
    assert 'class="badge good"' not in page
    # Nobody is told that the drift of before is over.
    assert alert_on_drift(shop, summary) == {"alert": None, "channels": {}}
    log = (shop.logs / "service" / "alerts.log").read_text(encoding="utf-8")
    assert str(summary["report_date"]) not in log
