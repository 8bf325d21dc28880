"""A refresh has nothing of customers who are forgotten, wherever it comes from and whenever."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest

from recsys.data.event_log import read_events
from recsys.data.staging import append_events
from recsys.data.versions import current_version
from recsys.ids import IdRules
from recsys.privacy import ask_to_forget, readmit
from recsys.refresh.job import RefreshError
from recsys.settings import Settings
from tests.data.shop import END, quarantined, refresh, row, write_shop

GONE, NUMBER = "KH09", "777"
"""Two who are forgotten: one id that is itself wherever it stands, and a mere number."""
STAY = [f"KH{number}" for number in range(10, 18)]
REVIEWS = [
    row(user, product, 1 + (at + product) % 5, f"2025-01-{1 + at + 2 * product:02} 10:00:00")
    for at, user in enumerate(STAY)
    for product in range(1, 7)
]
ORDERS = "ma_dong;ma_don;ngay_dat;ma_khach_hang;ma_san_pham;so_luong;thanh_tien;trang_thai"
OF_ALL = [f"o-{user};1;02/02/2025 10:05;{user};7;1;90.000;Đã giao" for user in STAY]


def of(user: str) -> list[str]:
    """Reviews of a customer, in several spellings of the id, one of them no good."""
    spelt = f"{user}.0" if user.isdigit() else f" {user} "
    return [
        row(user, 1, 5, "2025-01-03 09:00:00"),
        row(spelt, 2, 4, "2025-01-05 09:00:00"),
        row(user, 3, 17, "2025-01-06 09:00:00", f"hỏng của {user}"),
    ]


def write(
    settings: Settings, reviews: Sequence[str], orders: Sequence[str], dropped: Sequence[str]
) -> None:
    write_shop(settings, reviews)
    path = settings.raw / "orders" / "2025-02.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([ORDERS, *orders]) + "\n", encoding="utf-8")
    config = settings.home / "config" / "data.yaml"
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text("source: viecomrec\nevents: [orders]\nmax_invalid_fraction: 0.5\n")
    drop(settings, "more.csv", dropped)


def drop(settings: Settings, name: str, rows: Sequence[str]) -> None:
    folder = settings.staging / "files"
    folder.mkdir(parents=True, exist_ok=True)
    header = "user_id,product_id,rating,cmt_date,comment"
    (folder / name).write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")


def stage(settings: Settings, *users: str, mark: str = "") -> None:
    """A rating and two signals of each."""
    append_events(
        settings,
        [
            {
                "event_id": f"{kind}{mark}-{user}",
                "user_id": user,
                "product_id": "8",
                "kind": kind,
                "rating": 5 if kind == "rating" else None,
                "session_id": f"s-{user}",
                "timestamp": "2025-02-03T04:00:00+00:00",
            }
            for user in users
            for kind in ("rating", "purchase", "click")
        ],
    )


def forget(settings: Settings, *users: str) -> None:
    ask_to_forget(settings, users, "lan", IdRules())


def shop(settings: Settings, *more: str) -> None:
    """A shop with the customers `more` beside those who stay, in files of every kind."""
    rows = [line for user in more for line in of(user)]
    cancelled = [f"x-{user};2;03/02/2025;{user};8;1;;Đã huỷ" for user in more]
    orders = [line.replace("KH10", user) for user in more for line in OF_ALL[:1]]
    write(settings, [*rows, *REVIEWS], [*OF_ALL, *orders, *cancelled], [row("KH10", 8), *rows])
    stage(settings, *STAY[:2], *more)


def content(settings: Settings) -> dict[str, Any]:
    """The bytes of the published version's files, and what its manifest says of rows."""
    version = current_version(settings)
    files = {
        path.name: path.read_bytes()
        for path in version.path.iterdir()
        if path.is_file() and path.name != "manifest.json"
    }
    rows = {**version.manifest["rows"], "forgotten": 0}
    signals = {**version.manifest["signals"], "forgotten": 0}
    signals["exports"] = [
        {**one, "forgotten": 0, "files": len(one["files"])} for one in signals["exports"]
    ]
    reasons = version.manifest["quarantined_by_reason"]
    return {**files, "rows": rows, "signals": signals, "reasons": reasons}


def naming(settings: Settings, user: str) -> set[str]:
    """Files that a refresh makes and that name the customer."""
    made = [settings.versions, settings.quarantine, settings.raw / "events"]
    found = set()
    for path in [path for folder in made for path in folder.rglob("*") if path.is_file()]:
        text = path.read_bytes()
        if path.suffix == ".parquet":
            text = json.dumps(pq.read_table(path).to_pylist(), default=str).encode()
        if user.encode() in text:
            found.add(path.name)
    return found


@pytest.fixture
def two(tmp_path: Path) -> tuple[Settings, Settings]:
    return Settings(tmp_path / "with"), Settings(tmp_path / "without")


def test_a_version_is_that_of_a_shop_that_never_had_them(two):
    having, never = two
    shop(having, GONE, NUMBER)
    shop(never)
    forget(having, GONE, NUMBER)
    done = refresh(having)
    refresh(never)
    assert content(having) == content(never)
    # of each: three reviews, dropped again, an order, a cancelled one, and three events
    assert done["rows"]["forgotten"] == 2 * (3 + 3 + 3)
    assert done["signals"]["forgotten"] == 2 * 2
    assert quarantined(having).empty
    assert naming(having, GONE) == set()
    assert naming(having, "KH10") >= {"interactions.parquet", "signals.parquet"}


def test_what_was_in_the_last_version_is_not_in_the_next(two):
    """Also of the archive, whose events are in no staging area any more."""
    having, never = two
    shop(having, GONE, NUMBER)
    shop(never)
    refresh(having)
    assert GONE in set(current_version(having).interactions()["user_id"])
    assert naming(having, GONE) != set()
    forget(having, GONE, NUMBER)
    done = refresh(having)
    refresh(never)
    assert (done["strategy"], done["new_version"]) == ("full", True)
    assert content(having) == content(never)
    assert refresh(having)["strategy"] == "nothing_new"


def test_whatever_comes_later_is_left_out_and_archived_nowhere(two):
    having, never = two
    for settings in two:
        shop(settings)
        refresh(settings)
    forget(having, GONE)
    late = row("KH12", 3, time="2025-02-05 10:00:00")
    drop(having, "late.csv", [*of(GONE), late])
    drop(never, "late.csv", [late])
    stage(having, "KH12", GONE, mark="2")
    stage(never, "KH12", mark="2")
    for settings in two:
        refresh(settings, END + timedelta(days=1))
    assert naming(having, GONE) == set()
    assert content(having) == content(never)


def test_who_is_readmitted_is_there_again(two):
    settings, _ = two
    shop(settings, GONE)
    forget(settings, GONE)
    refresh(settings)
    readmit(settings, [GONE], "lan", IdRules())
    refresh(settings)
    assert GONE in set(current_version(settings).interactions()["user_id"])


def test_torn_rows_that_name_them_do_not_go_to_quarantine(two):
    """A mere number may be anything: the line is told, its text is not."""
    having, _ = two
    torn = [
        f"{GONE},1,5,2025-01-02 10:00:00,tốt,lắm,lắm",
        f"{NUMBER},1,5,2025-01-02 10:00:00,tốt,lắm",
        "KH11,1,5,2025-01-02 10:00:00,tốt,quá",
        f'KH11,1,9,2025-01-02 10:00:00,"xem {GONE}"',
        f"KH11,1,9,2025-01-02 10:00:00,{NUMBER} lần",
    ]
    write(having, [*torn, *REVIEWS], OF_ALL, [row("KH10", 8)])
    (having.staging / "events").mkdir(parents=True)
    (having.staging / "events" / "1-a.jsonl").write_text(f'{{"user_id": "{GONE}", "event\n')
    forget(having, GONE, NUMBER)
    done = refresh(having)
    rows = quarantined(having).fillna("")
    assert sorted(rows["raw"]) == [
        "",
        "KH11 | 1 | 9 | 2025-01-02 10:00:00 | 777 lần",
        "KH11,1,5,2025-01-02 10:00:00,tốt,quá",
    ]
    assert done["rows"]["forgotten"] == 3
    assert naming(having, GONE) == set()


def test_the_log_of_events_has_none_of_theirs(two):
    settings, _ = two
    shop(settings, GONE)
    since, until = datetime(2025, 2, 1, tzinfo=UTC), datetime(2025, 3, 1, tzinfo=UTC)
    assert GONE in set(read_events(settings, since, until)["user_id"])
    forget(settings, GONE)
    for _ in range(2):  # staged, then archived
        found = read_events(settings, since, until)
        assert GONE not in set(found["user_id"])
        assert {"KH10", "KH11"} <= set(found["user_id"])
        refresh(settings)


def test_many_who_go_at_once_do_not_look_like_a_file_that_was_cut_off(two):
    settings, _ = two
    shop(settings)
    refresh(settings)
    forget(settings, *STAY[2:])
    assert refresh(settings)["new_version"]
    assert set(current_version(settings).interactions()["user_id"]) == set(STAY[:2])
    # Once they are gone, what is lost beside them is.
    write(settings, REVIEWS[:2], OF_ALL, [])
    with pytest.raises(RefreshError, match="rows are left"):
        refresh(settings)


def test_columns_of_numbers_and_lines_of_json_are_looked_into(two):
    settings, _ = two
    shop(settings)
    folder = settings.staging / "files"
    frame = pd.DataFrame(
        {
            "user_id": [777.0, 778.0, float("nan")],
            "product_id": [1, 2, 3],
            "rating": [5, 4, 3],
            "cmt_date": ["2025-02-02 10:00:00"] * 3,
            "comment": ["a", "b", "c"],
        }
    )
    frame.to_parquet(folder / "numbers.parquet")
    lines = [{"user_id": user, "product_id": 4, "rating": 5} for user in (777, "777.0", 779)]
    (folder / "lines.jsonl").write_text(
        "".join(json.dumps({**one, "cmt_date": "2025-02-02 10:00:00"}) + "\n" for one in lines)
    )
    forget(settings, NUMBER)
    done = refresh(settings)
    assert done["rows"]["forgotten"] == 3
    users = set(current_version(settings).interactions()["user_id"])
    assert {"778", "779"} <= users
    assert NUMBER not in users
