from datetime import date

import pytest

from recsys.config import ConfigError, load_config
from recsys.drift.config import DriftConfig, Holiday, HolidayCalendar
from recsys.settings import Settings


def test_the_shipped_files_are_valid(settings: Settings) -> None:
    assert load_config(settings, DriftConfig).rating.threshold < 0.1
    assert {holiday.name for holiday in load_config(settings, HolidayCalendar).holidays} >= {"Tết"}


@pytest.mark.parametrize(
    ("monday", "holiday"),
    [
        (date(2023, 1, 16), "Tết"),
        (date(2030, 1, 28), "Tết"),
        (date(2023, 3, 6), "International Women's Day"),
        (date(2023, 9, 4), "Double-day sales"),
        (date(2023, 11, 6), "Double-day sales"),
        (date(2023, 12, 11), "Double-day sales"),
    ],
)
def test_the_week_of_a_holiday_is_known(settings: Settings, monday: date, holiday: str) -> None:
    names = [one.name for one in load_config(settings, HolidayCalendar).touching(monday)]
    assert any(name.startswith(holiday) for name in names)


def test_an_ordinary_week_has_none(settings: Settings) -> None:
    assert load_config(settings, HolidayCalendar).touching(date(2023, 6, 12)) == []


def test_every_tet_of_fifteen_years_is_there(settings: Settings) -> None:
    tet = next(one for one in load_config(settings, HolidayCalendar).holidays if one.name == "Tết")
    assert [day.year for day in tet.dates] == list(range(2015, 2031))
    assert all(date(day.year, 1, 21) <= day <= date(day.year, 2, 20) for day in tet.dates)


def test_a_span_over_the_turn_of_the_year_counts() -> None:
    eve = Holiday(name="Eve", every_year=("01-01",), days_before=3, days_after=0, widen=1.5)
    assert eve.touches(date(2024, 12, 23)) is True
    assert eve.touches(date(2024, 12, 16)) is False


def test_a_wrong_key_is_named(settings: Settings) -> None:
    folder = settings.home / "config"
    folder.mkdir(parents=True)
    (folder / "holidays.yaml").write_text(
        "holidays: [{name: X, every_year: ['13-40'], days_before: 0, days_after: 0, widen: 1}]"
    )
    with pytest.raises(ConfigError, match=r"holidays.0.every_year.*13-40"):
        load_config(settings, HolidayCalendar)
