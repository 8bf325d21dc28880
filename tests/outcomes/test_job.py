"""The job over real lists and events: true counts, the same days however they came about."""

import json
import multiprocessing
import os
import shutil
import sqlite3
import sys
from collections import Counter
from collections.abc import Mapping
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recsys import schema
from recsys.errors import InputError
from recsys.merchandising.exploring import Impressions, read_impressions
from recsys.outcomes.daily import figured_days, outcome_retentions, read_day, read_totals
from recsys.outcomes.job import compute_outcomes
from recsys.outcomes.partitions import lost_lists
from recsys.outcomes.report import write_outcome_report
from recsys.publishing import leftovers
from recsys.retention import Removal
from recsys.schedule import DataInterval, load_zone
from recsys.settings import Settings
from tests.data.test_event_files import CLICKS, ORDERS, write_exports
from tests.outcomes.shop import NOON, a_list, an_event, list_id, record, send

DAY = date(2026, 3, 10)
NOW = NOON + timedelta(days=9)
KINDS = {"click": "clicks", "cart": "carts", "purchase": "purchases"}


def run(settings: Settings, now: datetime = NOW, **options: Any) -> Any:
    return compute_outcomes(settings, DataInterval(now - timedelta(hours=1), now), **options)


def rows(settings: Settings) -> list[tuple[Any, ...]]:
    """The table."""
    with sqlite3.connect(settings.outcomes_db) as connection:
        return connection.execute("SELECT * FROM daily_outcomes ORDER BY 1,2,3,4,5,6,7").fetchall()


def files(settings: Settings) -> dict[str, bytes]:
    """All that the days are, but the notes of what they were made of and of four weeks."""
    return {
        str(path.relative_to(settings.outcomes)): path.read_bytes()
        for path in settings.outcomes.rglob("*")
        if path.is_file() and path.name not in ("ledger.json", "impressions.json")
    }


class Replay:
    """Lists of some days with outcomes whose counts are known, because they were chosen first."""

    def __init__(self, seed: int, lists: int, days: int = 3) -> None:
        draw = np.random.default_rng(seed)
        self.lists, self.events, self.truth = [], [], Counter[tuple[date, str]]()
        for number in range(lists):
            hours = float(draw.integers(0, days * 24)) - 12 + number / lists
            user, session = f"u{draw.integers(lists // 5)}", ""
            if number % 7 == 0:
                user, session = "", f"s{number}"
            products = [f"p{one}" for one in draw.choice(200, 6, replace=False)]
            self.lists.append(
                a_list(
                    number,
                    products,
                    user,
                    hours,
                    session_id=session,
                    placement=str(draw.choice(["home", "cart"])),
                    sources="".join(draw.choice([*"mcp"], 6)),
                )
            )
            day = (NOON + timedelta(hours=hours + 7)).date()
            self.truth[day, "lists"] += 1
            if number % 3 == 0:
                self._act(draw, self.lists[-1], day, hours)

    def _act(self, draw: np.random.Generator, row: Mapping[str, Any], day: date, at: float) -> None:
        """Events that name their list, one product and kind once."""
        name = (
            str(list_id(row["time"], 0))[:14] + str(list_id(row["time"], len(self.lists) - 1))[14:]
        )
        for kind, late in (("click", 0.1), ("cart", 1.0), ("purchase", 40.0)):
            if draw.random() < 0.5:
                continue
            product = str(draw.choice(row["products"]))
            value = float(draw.integers(1, 900)) * 1000.0
            self.events.append(
                an_event(
                    len(self.events),
                    product,
                    kind,
                    row[schema.USER],
                    at + late * draw.random(),
                    session_id=row[schema.SESSION],
                    recommendation_id=name,
                    value=value,
                )
            )
            self.truth[day, KINDS[kind]] += 1
            if kind == "purchase":
                self.truth[day, "value"] += int(value)


def counted(settings: Settings) -> Counter[tuple[date, str]]:
    found: Counter[tuple[date, str]] = Counter()
    for day in figured_days(settings):
        totals = read_totals(settings, day)
        for name in ("lists", *KINDS.values(), "value"):
            found[day, name] += int(totals[name])
    return found


def test_a_replay_gives_the_true_counts_however_the_events_come(settings: Settings) -> None:
    replay = Replay(1, 2000)
    draw = np.random.default_rng(2)
    again = [replay.events[n] for n in draw.integers(0, len(replay.events), 300)]
    told = [*replay.events, *again]
    told = [told[n] for n in draw.permutation(len(told))]
    unknown = [
        an_event(f"x{n}", "p1", recommendation_id=str(list_id(NOON, 10**9))) for n in range(9)
    ]
    record(settings, replay.lists[::2])
    send(settings, [*told[:400], *unknown])
    run(settings)
    record(settings, replay.lists[1::2])
    for part in (told[400:800], told[800:]):
        send(settings, part, NOW - timedelta(minutes=5))
        run(settings)
    assert counted(settings) == replay.truth
    assert read_totals(settings, DAY)["happened"]["unknown_list"] == {"click": 9}
    table = rows(settings)
    for day in figured_days(settings):
        of_day = [row for row in table if row[0] == str(day)]
        for place, name in enumerate(("clicks", "carts", "purchases", "value"), start=10):
            assert sum(row[place] for row in of_day) == replay.truth[day, name]
    # The same lists and events at once, and by backfill, are the same days to the last byte.
    other = Settings(settings.home.parent / "other")
    record(other, replay.lists)
    send(other, [*replay.events, *unknown])
    run(other)
    assert files(other) == files(settings)
    assert rows(other) == table
    before = files(settings)
    summary = run(settings, first=str(DAY), last=str(DAY))
    assert summary["made"] == [str(DAY)]
    assert files(settings) == before


def run_until(home: Path, rename: int) -> None:
    """End before the so-manieth renaming; in a process of its own."""
    left = [rename]

    def stop(event: str, _: object) -> None:
        if event == "os.rename":
            left[0] -= 1
            if not left[0]:
                os._exit(9)

    sys.addaudithook(stop)
    run(Settings(home))
    os._exit(0)


def test_a_killed_run_leaves_no_half_day_and_the_next_goes_on(settings: Settings) -> None:
    replay = Replay(3, 300, days=2)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["recsys.outcomes.job", __name__])
    record(settings, replay.lists[:200])
    send(settings, replay.events)
    ends = []
    for rename in (2, 6, 9, 13, 3):
        if rename == 9:
            record(settings, replay.lists[200:])
        child = context.Process(target=run_until, args=(settings.home, rename))
        child.start()
        child.join()
        ends.append(child.exitcode)
        for day in figured_days(settings):
            assert len(list((settings.outcomes / f"day={day}").iterdir())) == 6
    assert ends.count(9) >= 4
    run(settings)
    assert counted(settings) == replay.truth
    other = Settings(settings.home.parent / "other")
    record(other, replay.lists)
    send(other, replay.events)
    run(other)
    left = {str(path.relative_to(settings.outcomes)) for path in leftovers(settings.outcomes)}
    found = {name: what for name, what in files(settings).items() if name.split("/")[0] not in left}
    assert found.keys() >= files(other).keys()
    assert {name: found[name] for name in files(other)} == files(other)
    assert rows(other) == rows(settings)


def test_only_days_that_something_touches_are_made_again(settings: Settings) -> None:
    record(settings, [a_list(n, "ab", "u", 24.0 * n) for n in range(4)])
    send(settings, [an_event(n, "a", hours=24 * n + 1) for n in range(4)])
    now = NOON + timedelta(days=4)
    first = run(settings, now)
    assert first["made"] == [f"2026-03-{day}" for day in (10, 11, 12, 13)]
    again = run(settings, now + timedelta(hours=1))
    assert (again["made"], again["attributed"]) == ([], 0)
    # A click belongs to the list of its day, a late purchase reopens the day of its list.
    late = an_event("late", "b", "purchase", hours=30, value=5.0)
    send(settings, [late, an_event("new", "b", hours=73)], now + timedelta(hours=1.5))
    summary = run(settings, now + timedelta(hours=2))
    assert summary["made"] == ["2026-03-11", "2026-03-13"]
    assert [read_totals(settings, day)["purchases"] for day in figured_days(settings)] == [
        0,
        1,
        0,
        0,
    ]


def test_a_later_list_takes_an_event_from_the_one_before(settings: Settings) -> None:
    record(settings, [a_list(1, "ab")])
    send(settings, [an_event(1, "a", "cart", hours=60)])
    run(settings)
    assert counted(settings)[DAY, "carts"] == 1
    record(settings, [a_list(2, "a", hours=48)])
    run(settings)
    assert counted(settings)[DAY, "carts"] == 0
    assert counted(settings)[DAY + timedelta(days=2), "carts"] == 1


def test_an_event_that_names_its_list_finds_it_long_after(settings: Settings) -> None:
    record(settings, [a_list(1, "ab")])
    run(settings)
    send(settings, [an_event(1, "a", hours=500, recommendation_id=str(list_id(NOON, 1)))])
    run(settings, NOON + timedelta(days=22))
    assert counted(settings)[DAY, "clicks"] == 1
    assert run(settings, NOON + timedelta(days=22), first=str(DAY))["made"] == [str(DAY)]
    assert counted(settings)[DAY, "clicks"] == 1


def test_days_are_those_of_the_shops_time_zone(settings: Settings) -> None:
    record(settings, [a_list(1, "ab", hours=11.9), a_list(2, "ab", hours=12.1)])
    run(settings)
    assert figured_days(settings) == [DAY, DAY + timedelta(days=1)]


def test_a_backfill_makes_the_day_of_its_interval_only(settings: Settings) -> None:
    record(settings, [a_list(n, "ab", "u", 24.0 * n) for n in range(3)])
    send(settings, [an_event(n, "a", hours=24 * n + 1) for n in range(3)])
    options = {"is_backfill": True}
    assert run(settings, NOON + timedelta(days=1), **options)["made"] == ["2026-03-11"]
    assert run(settings, NOON + timedelta(days=1, hours=1), **options)["made"] == []
    assert figured_days(settings) == [date(2026, 3, 11)]
    assert run(settings, NOON + timedelta(days=3))["made"] == ["2026-03-10", "2026-03-12"]


def test_what_is_lost_is_made_again(settings: Settings) -> None:
    record(settings, [a_list(1, "ab")])
    send(settings, [an_event(1, "a")])
    run(settings)
    before, table = files(settings), rows(settings)
    for path in (settings.outcomes / "day=2026-03-10" / "totals.json", settings.outcomes_db):
        path.unlink()
    (settings.outcomes / "ledger.json").write_text("[]")
    run(settings)
    assert (files(settings), rows(settings)) == (before, table)
    settings.outcomes_db.write_text("no database of ours" * 99)
    (settings.outcomes / "events" / "2026-03-10.parquet").unlink()
    run(settings)
    assert (files(settings), rows(settings)) == (before, table)


@pytest.mark.parametrize(
    "damage",
    [{"seen_until": 5}, {"seen_until": "x"}, {"days": []}, {"reaches": {"2026-03-10": [1]}}],
)
def test_a_ledger_that_says_nonsense_is_made_again(
    settings: Settings, damage: dict[str, Any]
) -> None:
    record(settings, [a_list(1, "ab")])
    send(settings, [an_event(1, "a")])
    run(settings)
    before, ledger = files(settings), settings.outcomes / "ledger.json"
    ledger.write_text(json.dumps(json.loads(ledger.read_text()) | damage))
    assert run(settings)["made"] == [str(DAY)]
    assert files(settings) == before


def test_robots_of_the_configuration_change_the_days(settings: Settings) -> None:
    record(settings, [a_list(1, "ab"), a_list(2, "ab", "probe")])
    run(settings)
    assert counted(settings)[DAY, "lists"] == 2
    config = settings.home / "config" / "outcomes.yaml"
    config.parent.mkdir()
    config.write_text("robots: [probe]\n")
    run(settings)
    assert counted(settings)[DAY, "lists"] == 1


def test_days_that_are_none_are_refused_with_a_sentence(settings: Settings) -> None:
    for options, words in (
        ({"first": "yesterday"}, "expected days such as"),
        ({"first": "2026-03-10", "last": "2026-03-09"}, "is before"),
        ({"first": "2027-01-01"}, "still to come"),
    ):
        with pytest.raises(InputError, match=words):
            run(settings, **options)


def test_days_whose_lists_are_gone_stay_as_they_are(settings: Settings) -> None:
    record(settings, [a_list(1, "ab")])
    send(settings, [an_event(1, "a")])
    run(settings)
    before = files(settings)
    run(settings, NOON + timedelta(days=200), first=str(DAY))
    run(settings, NOON + timedelta(days=200))
    assert files(settings) == before


def test_units_are_handed_to_the_experiments(settings: Settings) -> None:
    record(settings, [a_list(1, "ab", experiment="e", variant="x")])
    run(settings)
    units = read_day(settings, DAY, "units")
    assert units.to_dict("records") == [
        {
            "experiment": "e",
            "variant": "x",
            "unit": "u",
            "lists": 1,
            "clicks": 0,
            "carts": 0,
            "purchases": 0,
            "value": 0.0,
            "fallbacks": 0,
        }
    ]


def test_a_damaged_file_is_named(settings: Settings, tmp_path: Path) -> None:
    record(settings, [a_list(1, "ab")])
    run(settings)
    path = settings.outcomes / "day=2026-03-10" / "slices.parquet"
    path.write_bytes(b"no parquet")
    with pytest.raises(InputError, match=r"slices.parquet: cannot be read; run .*--from DAY"):
        read_day(settings, DAY, "slices")
    run(settings, first=str(DAY))
    assert len(read_day(settings, DAY, "slices"))


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("totals.json", b"[]"),
        ("totals.json", None),
        ("slices.parquet", b""),
        ("units.parquet", b"PAR1 nonsense"),
        ("products.parquet", None),
    ],
)
def test_damaged_figures_are_made_again_by_the_next_run(
    settings: Settings, name: str, damage: bytes | None
) -> None:
    record(settings, [a_list(1, "ab")])
    send(settings, [an_event(1, "a")])
    run(settings)
    before = files(settings)
    path = settings.outcomes / f"day={DAY}" / name
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2] if damage is None else damage)
    summary = run(settings, NOW + timedelta(hours=1))
    assert (summary["made"], summary["repaired"]) == ([str(DAY)], [str(DAY)])
    assert files(settings) == before
    assert run(settings, NOW + timedelta(hours=2))["repaired"] == []


def test_pages_that_are_damaged_in_the_middle_are_noticed(settings: Settings) -> None:
    record(settings, [a_list(1, "ab")])
    run(settings)
    before = files(settings)
    path = settings.outcomes / f"day={DAY}" / "groups.parquet"
    content = bytearray(path.read_bytes())
    content[4:60] = bytes(56)
    path.write_bytes(content)
    assert run(settings)["repaired"] == [str(DAY)]
    assert files(settings) == before


def test_damaged_events_of_a_day_are_attributed_again(settings: Settings) -> None:
    record(settings, [a_list(1, "ab", hours=-24 * 20)])
    name = str(list_id(NOON - timedelta(days=20), 1))
    send(settings, [an_event(1, "a", recommendation_id=name), an_event(2, "b", "purchase")])
    run(settings)
    before = files(settings)
    for damage in (b"PAR1 nonsense", None):  # no lists in the week before: only the name leads back
        path = settings.outcomes / "events" / f"{DAY}.parquet"
        path.unlink() if damage is None else path.write_bytes(damage)
        summary = run(settings, NOW + timedelta(hours=8))
        assert (summary["repaired"], files(settings)) == ([str(DAY)], before)


def test_past_days_are_made_beside_damaged_ones(settings: Settings) -> None:
    record(settings, [a_list(1, "ab"), a_list(2, "ab", hours=72)])
    run(settings)
    before = files(settings)
    (settings.outcomes / f"day={DAY}" / "totals.json").write_text("{}")
    assert run(settings, first="2026-03-13")["made"] == [str(DAY), "2026-03-13"]
    assert files(settings) == before


def test_damaged_figures_whose_lists_are_gone_are_set_aside_and_told(settings: Settings) -> None:
    record(settings, [a_list(1, "ab")])
    run(settings)
    path = settings.outcomes / f"day={DAY}" / "totals.json"
    path.write_text('{"lists": ')
    later = NOON + timedelta(days=200)
    assert run(settings, later)["repaired"] == [str(DAY)]
    assert figured_days(settings) == []
    [aside] = settings.outcomes.glob(f"day={DAY}.damaged-*/totals.json")
    assert aside.read_text() == '{"lists": '
    told = (settings.logs / "service" / "alerts.log").read_text()
    assert told.count("outcomes_damaged triggered") == 1
    assert f"data/outcomes/day={DAY} was damaged and is set aside" in told
    assert run(settings, later)["repaired"] == []
    assert len(rows(settings)) == 1  # the table still has the day


def test_figures_of_another_version_are_made_again_or_stay_where_they_cannot(
    settings: Settings,
) -> None:
    record(settings, [a_list(1, "ab")])
    run(settings)
    before = files(settings)
    path = settings.outcomes / f"day={DAY}" / "totals.json"
    totals = json.loads(path.read_text())
    del totals["unvalued"]
    path.write_text(json.dumps(totals))
    assert run(settings)["repaired"] == [str(DAY)]
    assert files(settings) == before
    path.write_text(json.dumps(totals))
    later = NOON + timedelta(days=200)
    for _ in range(2):
        assert run(settings, later)["repaired"] == []
    assert figured_days(settings) == [DAY]
    assert not (settings.logs / "service" / "alerts.log").exists()


def test_a_file_that_a_day_need_not_have_is_missed_where_it_had_one(settings: Settings) -> None:
    record(settings, [a_list(1, "ab", sources="me", propensities=[0.5, 0.1])])
    run(settings)
    before = files(settings)
    (settings.outcomes / f"day={DAY}" / "explored.parquet").unlink()
    assert run(settings)["repaired"] == [str(DAY)]
    assert files(settings) == before


def test_a_damaged_file_of_served_lists_stops_no_run(settings: Settings) -> None:
    record(settings, [a_list(1, "ab")])
    run(settings)
    record(settings, [a_list(2, "ab"), a_list(3, "ab", hours=72)])
    [old] = settings.home.glob(f"data/served/day={DAY}/*.parquet")
    old.write_bytes(old.read_bytes()[:-9])
    summary = run(settings, NOW + timedelta(hours=1))
    assert summary["made"] == [str(DAY), "2026-03-13"]
    assert counted(settings)[DAY, "lists"] == 1
    write_outcome_report(settings, NOW.date())
    assert lost_lists(settings, [DAY]) == {DAY: 1}
    assert run(settings, NOW + timedelta(hours=2))["made"] == []


def test_an_order_that_is_cancelled_reopens_its_day(settings: Settings) -> None:
    write_exports(settings, clicks=CLICKS[:1])
    record(settings, [a_list(1, "19", "KH01")])
    head = ORDERS.partition("\n")[0]
    exports = settings.raw / "orders"
    line = "{};1;{};KH01;1;1;9.000;{}\n"
    bought = [line.format(one, "10/03/2026 14:00", "Đã giao") for one in ("a-1", "a-2")]
    (exports / "2026-03.csv").write_text("\n".join([head, *bought]))
    run(settings)
    assert counted(settings)[DAY, "purchases"] == 1
    before = files(settings)
    cancelled = [line.format(one, "18/03/2026 09:00", "Đã hủy") for one in ("a-1", "a-2")]
    (exports / "2026-04.csv").write_text("\n".join([head, cancelled[0]]))
    later = NOW + timedelta(hours=1)
    assert run(settings, later)["made"] == [str(DAY)]
    assert counted(settings)[DAY, "purchases"] == 1  # the other one
    (exports / "2026-05.csv").write_text("\n".join([head, *cancelled]))
    assert run(settings, later)["made"] == [str(DAY)]
    assert counted(settings)[DAY, "purchases"] == 0
    assert run(settings, later)["made"] == []
    for path in exports.glob("2026-0[45].csv"):
        path.unlink()
    run(settings, later, first=str(DAY))
    assert files(settings) == before


def test_figures_go_after_a_year_and_a_month_with_events_and_rows(settings: Settings) -> None:
    record(settings, [a_list(1, "ab")])
    send(settings, [an_event(1, "a")])
    run(settings)
    old = datetime.now(load_zone(settings)).date() - timedelta(days=402)
    folder = settings.outcomes / f"day={old}"
    shutil.copytree(settings.outcomes / f"day={DAY}", folder)
    events = settings.outcomes / "events"
    shutil.copy(events / f"{DAY}.parquet", events / f"{old}.parquet")
    run(settings)  # fills in the rows
    assert {row[0] for row in rows(settings)} == {str(DAY), str(old)}
    freed = Removal(settings).execute(outcome_retentions(settings))
    assert {what: area["count"] for what, area in freed.items()} == {
        "outcomes": 1, "attributed events": 1, "outcome rows": 1,
    }  # fmt: skip
    assert figured_days(settings) == [DAY]
    assert {row[0] for row in rows(settings)} == {str(DAY)}


def test_the_service_is_told_what_was_shown_in_four_weeks(settings: Settings) -> None:
    record(
        settings,
        [
            a_list(1, ["a", "b"]),
            a_list(2, ["b", "c"], hours=24.0 * 27),
            a_list(3, ["c"], hours=24.0 * 28),
        ],
    )
    send(settings, [an_event(1, "a"), an_event(2, "b", hours=24.0 * 27 + 1)])
    run(settings, NOON + timedelta(days=27, hours=3))
    assert read_impressions(settings) == Impressions(
        "2026-04-06", {"a": (1, 1), "b": (2, 1), "c": (1, 0)}
    )
    # A day later the first one is four weeks ago; days that are made again tell of themselves only.
    run(settings, NOON + timedelta(days=28, hours=3))
    later = Impressions("2026-04-07", {"b": (1, 1), "c": (2, 0)})
    assert read_impressions(settings) == later
    run(settings, first=str(DAY))
    assert read_impressions(settings) == later


def test_without_lists_the_service_is_told_that_nothing_was_shown(settings: Settings) -> None:
    run(settings)
    assert read_impressions(settings) == Impressions("2026-03-19", {})
