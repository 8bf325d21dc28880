"""The reports of Hasaki's real spring of 2023."""

import json
import shutil
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from recsys.drift.job import detect_drift
from recsys.refresh.job import run_refresh
from recsys.schedule import DataInterval
from recsys.settings import REPOSITORY, Settings
from tests.conftest import SHARED_DATA
from tests.drift.shop import ZONE


@pytest.fixture(scope="module")
def hasaki(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    source = SHARED_DATA / "hasaki"
    if not source.is_dir():
        pytest.skip(f"no real data at {source}")
    home: Path = tmp_path_factory.mktemp("hasaki")
    (home / "config").mkdir()
    text = (REPOSITORY / "config" / "data.yaml").read_text(encoding="utf-8")
    (home / "config" / "data.yaml").write_text(text.replace("viecomrec", "hasaki"))
    shutil.copytree(source, home / "data" / "raw" / "hasaki")
    settings = Settings(home)
    end = datetime(2024, 1, 9, tzinfo=ZONE)
    run_refresh(settings, DataInterval(end - timedelta(days=1), end))
    return settings


def report_about(settings: Settings, first_day: date) -> dict[str, Any]:
    end = datetime(first_day.year, first_day.month, first_day.day, 9, tzinfo=ZONE)
    end += timedelta(days=7)
    summary = detect_drift(settings, DataInterval(end - timedelta(days=7), end))
    return dict(json.loads((settings.home / summary["report"]).read_text(encoding="utf-8")))


@pytest.mark.parametrize("first_day", [date(2023, 4, 24), date(2023, 5, 1)])
def test_the_campaign_is_flagged_from_its_first_week_and_not_taken_for_taste(
    hasaki: Settings, first_day: date
) -> None:
    report = report_about(hasaki, first_day)
    assert report["raised"] == ["volume", "campaign"]
    assert report["overall_severity"] == "medium"
    assert report["windows"]["new"]["rows"] > 1_000
    sentences = [one["text"].lower() for one in report["campaign"]["sentences"]]
    assert any("thoải mái" in text for text in sentences)


def test_a_rush_for_one_product_is_called_that(hasaki: Settings) -> None:
    report = report_about(hasaki, date(2023, 4, 10))
    assert report["raised"] == ["volume"]
    assert report["interaction_drift"]["volume"]["pattern"] == "product burst"


@pytest.mark.parametrize(
    "first_day",
    [date(2023, 1, 23), date(2023, 3, 20), date(2023, 5, 8), date(2023, 6, 12), date(2023, 8, 14)],
)
def test_quiet_weeks_are_quiet_even_at_tet_and_after_the_campaign(
    hasaki: Settings, first_day: date
) -> None:
    assert report_about(hasaki, first_day)["raised"] == []
