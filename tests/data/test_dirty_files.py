"""Every kind of dirt ends as documented in docs/data.md: rows in quarantine, or a clear error.

Each case is a review file around ten good rows. ``Rows(good, bad)`` means that the refresh
publishes so many rows and quarantines so many; ``Error(text)`` that it names the problem and
publishes nothing.
"""

import gzip
import io
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest

from recsys.data.staging import append_events
from recsys.data.versions import current_version, list_versions
from recsys.errors import InputError, SourceError
from recsys.settings import REPOSITORY
from tests.data.shop import (
    HEADER,
    published_rows,
    quarantined,
    refresh,
    row,
    select_source,
    write_shop,
)

GOOD = [row(f"u{number}", number % 5, time=f"2025-01-0{1 + number % 9}") for number in range(10)]


@dataclass
class Rows:
    good: int
    bad: int = 0
    reason: str = ""


@dataclass
class Error:
    text: str


def csv(*extra: str, header: str = HEADER, good: list[str] | None = None) -> bytes:
    return ("\n".join([header, *(GOOD if good is None else good), *extra]) + "\n").encode()


def parquet(frame: pd.DataFrame) -> bytes:
    buffer = io.BytesIO()
    frame.to_parquet(buffer)
    return buffer.getvalue()


def frame() -> pd.DataFrame:
    return pd.read_csv(io.BytesIO(csv()), keep_default_na=False)


def jsonl(*extra: str) -> bytes:
    lines = frame().to_json(orient="records", lines=True)
    return (lines + "".join(f"{line}\n" for line in extra)).encode()


def cp1258() -> bytes:
    text = csv(good=[row(f"u{number}", comment="hàng tôt lăm") for number in range(9)])
    return text.decode().encode("cp1258")


TEXT = "reviews.csv"
CASES: dict[str, tuple[str, Callable[[], bytes], Rows | Error]] = {
    # harmless
    "bom": (TEXT, lambda: b"\xef\xbb\xbf" + csv(), Rows(10)),
    "crlf": (TEXT, lambda: csv().replace(b"\n", b"\r\n"), Rows(10)),
    "no newline at the end": (TEXT, lambda: csv().rstrip(b"\n"), Rows(10)),
    "blank lines": (TEXT, lambda: csv().replace(b"\n", b"\n\n"), Rows(10)),
    "quotes": (TEXT, lambda: csv(row("q", comment='"he said ""tốt"", twice"')), Rows(11)),
    "embedded newlines": (TEXT, lambda: csv(row("q", comment='"một\nhai\r\nba"')), Rows(11)),
    "a stray quote inside": (TEXT, lambda: csv(row("q", comment='5" màn hình')), Rows(11)),
    "reordered columns": (
        TEXT,
        lambda: (
            frame()[["comment", "cmt_date", "rating", "product_id", "user_id"]]
            .to_csv(index=False)
            .encode()
        ),
        Rows(10),
    ),
    "extra columns": (TEXT, lambda: frame().assign(x=1, y="z").to_csv().encode(), Rows(10)),
    "blanks around header names": (
        TEXT,
        lambda: csv(header="user_id, product_id ,rating,cmt_date,comment"),
        Rows(10),
    ),
    "blanks around values": (TEXT, lambda: csv(row(" q ", " 2 ", " 5 ", " 2025-01-02 ")), Rows(11)),
    "no comment column": (
        TEXT,
        lambda: frame().drop(columns="comment").to_csv(index=False).encode(),
        Rows(10),
    ),
    "13-digit ids": (TEXT, lambda: csv(row(1234567890123, 9876543210987)), Rows(11)),
    "ids with a decimal point": (TEXT, lambda: csv(row("443.0", "7.0")), Rows(11)),
    "ids in scientific notation": (TEXT, lambda: csv(row("4.43E+02", "7E+00")), Rows(11)),
    "ids as floats in parquet": (
        "reviews.parquet",
        lambda: parquet(frame().assign(user_id=[1e15 + n for n in range(9)] + [None])),
        Rows(9, 1, "there is no user"),
    ),
    "ids with letters": (TEXT, lambda: csv(row("SKU-12/ă", "mã 7")), Rows(11)),
    "mixed date formats": (
        TEXT,
        lambda: csv(
            row("a", time="3/1/2025"),
            row("b", time="03/01/2025 07:05"),
            row("c", time="2025-01-03T07:05:00Z"),
            row("d", time="2025-01-03 07:05:00.123456+07:00"),
        ),
        Rows(14),
    ),
    "null bytes in a comment": (TEXT, lambda: csv(row("n", comment="a\0b")), Rows(11)),
    "emoji and decomposed text": (TEXT, lambda: csv(row("e", comment="tốt 😍")), Rows(11)),
    "a repeated row": (TEXT, lambda: csv(GOOD[0]), Rows(10)),
    "gzip": (TEXT + ".gz", lambda: gzip.compress(csv()), Rows(10)),
    "json lines": ("reviews.jsonl", jsonl, Rows(10)),
    "gzipped json lines": ("reviews.jsonl.gz", lambda: gzip.compress(jsonl()), Rows(10)),
    "parquet": ("reviews.parquet", lambda: parquet(frame()), Rows(10)),
    "parquet with typed times": (
        "reviews.parquet",
        lambda: parquet(frame().assign(cmt_date=pd.Timestamp("2025-01-05", tz="UTC"))),
        Rows(10),
    ),
    # single bad rows
    "no user": (TEXT, lambda: csv(row("")), Rows(10, 1, "there is no user")),
    "no product": (TEXT, lambda: csv(row(product="NaN")), Rows(10, 1, "there is no product")),
    "no rating": (TEXT, lambda: csv(row(rating="")), Rows(10, 1, "there is no rating")),
    "no time": (TEXT, lambda: csv(row(time="")), Rows(10, 1, "there is no time")),
    "rating NaN": (TEXT, lambda: csv(row(rating="NaN")), Rows(10, 1, "there is no rating")),
    "rating Inf": (TEXT, lambda: csv(row(rating="inf")), Rows(10, 1, "outside 1-5")),
    "rating 1e400": (TEXT, lambda: csv(row(rating="1e400")), Rows(10, 1, "rating")),
    "rating 0": (TEXT, lambda: csv(row(rating=0)), Rows(10, 1, "outside 1-5")),
    "rating negative": (TEXT, lambda: csv(row(rating=-5)), Rows(10, 1, "outside 1-5")),
    "rating in words": (TEXT, lambda: csv(row(rating="năm")), Rows(10, 1, "not a number")),
    "negative year": (TEXT, lambda: csv(row(time="30/11/-0001")), Rows(10, 1, "cannot be read")),
    "year 0000": (TEXT, lambda: csv(row(time="0000-00-00")), Rows(10, 1, "cannot be read")),
    "year only": (TEXT, lambda: csv(row(time="2025")), Rows(10, 1, "cannot be read")),
    "31 February": (TEXT, lambda: csv(row(time="31/02/2025")), Rows(10, 1, "cannot be read")),
    "before the shop": (TEXT, lambda: csv(row(time="1970-01-01")), Rows(10, 1, "before 2000")),
    "in the future": (TEXT, lambda: csv(row(time="2999-01-01")), Rows(10, 1, "in the future")),
    "an id cut short": (TEXT, lambda: csv(row("4.22E+08")), Rows(10, 1, "cut short")),
    "undefined": (TEXT, lambda: csv(row("undefined")), Rows(10, 1, "there is no user")),
    "a masked name": (TEXT, lambda: csv(row("n*****a")), Rows(10, 1, "stands for many")),
    "guests": (TEXT, lambda: csv(row("0")), Rows(10, 1, "stands for many")),
    "null bytes in an id": (TEXT, lambda: csv(row("a\0b")), Rows(10, 1, "not an id")),
    "newline in an id": (TEXT, lambda: csv(row('"a\nb"')), Rows(10, 1, "not an id")),
    "an endless id": (TEXT, lambda: csv(row("9" * 500)), Rows(10, 1, "not an id")),
    "too few columns": (TEXT, lambda: csv("a,b,c"), Rows(10, 1, "has 3 columns instead of 5")),
    "too many columns": (TEXT, lambda: csv(row() + ",x,y"), Rows(10, 1, "has 7 columns")),
    "one row in another encoding": (
        TEXT,
        lambda: csv() + row("x", comment="tốt").encode("utf-16-le") + b"\n",
        Rows(10, 1, ""),
    ),
    "invalid UTF-8 in a comment": (
        TEXT,
        lambda: csv() + b"u,1,5,2025-01-02,\xff\xfe\n",
        Rows(10, 1, "not valid UTF-8"),
    ),
    "a quote open at the end": (TEXT, lambda: csv(row("q", comment='"tốt')), Rows(11)),
    "a quote that never closes": (
        TEXT,
        lambda: csv(good=[*GOOD[:4], row("q", comment='"tốt'), *GOOD[4:]]),
        Rows(10, 1, "begins a quote"),
    ),
    "a quote that swallows bad rows only": (
        TEXT,
        lambda: csv(row("q", comment='"tốt'), row("b", rating="năm")),
        Rows(10, 2, "begins a quote"),
    ),
    "a list in a comment": (
        TEXT,
        lambda: csv(row("q", comment='"Thơm\nmịn, rẻ, đẹp, nhanh, tốt"')),
        Rows(11),
    ),
    "a quote that the next quote closes": (
        TEXT,
        lambda: csv(row("q", comment='"tốt'), row("a"), row("b", 2), row("c", comment='"ổn, rẻ"')),
        Rows(13, 1, "begins a quote"),
    ),
    "a line of 20 MB": (
        TEXT,
        lambda: csv(row("long", comment="x" * 20_000_000), row("after")),
        Rows(11, 1, "is longer than"),
    ),
    "a line that is not JSON": ("reviews.jsonl", lambda: jsonl("{oops"), Rows(10, 1, "not JSON")),
    "a JSON line that is a list": ("reviews.jsonl", lambda: jsonl("[1]"), Rows(10, 1, "object")),
    "nested JSON": ("reviews.jsonl", lambda: jsonl("[" * 100_000), Rows(10, 1, "nested too deep")),
    # whole files
    "empty": (TEXT, lambda: b"", Error("the file is empty")),
    "only blanks": (TEXT, lambda: b"\n\n  \n", Error("the file is empty")),
    "only a header": (TEXT, lambda: csv(good=[]), Error("there are no rows")),
    "cp1258 text": (TEXT, cp1258, Error("the text is not utf-8")),
    "utf-16 text": (TEXT, lambda: csv().decode().encode("utf-16"), Error("the text is not utf-8")),
    "missing column": (
        TEXT,
        lambda: csv(header="user_id,product_id,stars,cmt_date,comment"),
        Error("there is no column 'rating'"),
    ),
    "duplicate header": (
        TEXT,
        lambda: csv(header="user_id,product_id,rating,cmt_date,rating"),
        Error("stands there 2 times"),
    ),
    "no header": (TEXT, lambda: csv(header=GOOD[0]), Error("there is no column 'user_id'")),
    "semicolons": (TEXT, lambda: csv().replace(b",", b";"), Rows(10)),
    "a third of the rows bad": (
        TEXT,
        lambda: csv(*[row(rating=9)] * 5),
        Error("more than max_invalid_fraction"),
    ),
    "truncated gzip": (TEXT + ".gz", lambda: gzip.compress(csv())[:-20], Error("cannot be read")),
    "not gzip": (TEXT + ".gz", csv, Error("cannot be read")),
    "truncated parquet": (
        "reviews.parquet",
        lambda: parquet(frame())[:-50],
        Error("cannot be read"),
    ),
    "parquet without a column": (
        "reviews.parquet",
        lambda: parquet(frame().drop(columns="user_id")),
        Error("there is no column"),
    ),
    "nested parquet": (
        "reviews.parquet",
        lambda: parquet(frame().assign(user_id=[["a"]] * 10)),
        Error("expected text, numbers or times"),
    ),
    "binary rubbish": (
        TEXT,
        lambda: bytes(range(256)) * 40,
        Error("there is no column|cannot be|not utf-8"),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_dirt_ends_as_documented(settings, tmp_path, case):
    name, make, outcome = CASES[case]
    path = tmp_path / name
    path.write_bytes(make())
    write_shop(settings, GOOD)
    products = settings.raw / "viecomrec" / "data_product.csv"
    if isinstance(outcome, Error):
        with pytest.raises(InputError, match=outcome.text):
            run(settings, path, products)
        assert list_versions(settings) == []
        assert not settings.processed.exists()
        return
    summary = run(settings, path, products)
    assert (summary["rows"]["accepted"], summary["rows"]["quarantined"]) == (
        outcome.good,
        outcome.bad,
    )
    current_version(settings).verify()
    rejected = quarantined(settings)
    assert len(rejected) == outcome.bad
    if outcome.bad:
        assert outcome.reason in rejected["reason"].iloc[0]
        assert rejected["file"].iloc[0] == str(path)
        assert 1 < rejected["row"].iloc[0] <= 12


def run(settings, path: Path, products: Path):
    select_source(settings, "viecomrec", path, products)
    return refresh(settings)


def test_a_path_that_cannot_be_read_is_named(settings, tmp_path):
    write_shop(settings, GOOD)
    products = settings.raw / "viecomrec" / "data_product.csv"
    with pytest.raises(SourceError, match=r"nowhere\.csv: the file does not exist"):
        select_source(settings, "viecomrec", tmp_path / "nowhere.csv", products)
    with pytest.raises(SourceError, match="expected a file"):
        select_source(settings, "viecomrec", tmp_path, products)
    secret = tmp_path / "secret.csv"
    secret.write_bytes(csv())
    secret.chmod(0)
    if os.geteuid() == 0:
        return  # root reads everything
    with pytest.raises(SourceError, match="cannot be read"):
        select_source(settings, "viecomrec", secret, products)


def test_there_are_fifty_kinds_of_dirt():
    assert len(CASES) >= 50


def test_an_unreadable_catalogue_stops_the_refresh(settings):
    write_shop(settings, GOOD)
    (settings.raw / "viecomrec" / "data_product.csv").write_text("product_id\n1\n")
    with pytest.raises(SourceError, match="product_name"):
        refresh(settings)


def test_bad_products_are_quarantined_and_prices_read_leniently(settings):
    products = [
        "7,Son,B,Son môi,209.000 ₫,x",
        "8,,B,Son,1,x",
        "9,Kem,B,Kem,,x",
        "7,Son 2,B,Son,5,x",
        *(f"{number},Kem {number},B,Kem,1,x" for number in range(10, 14)),
    ]
    write_shop(settings, GOOD, products)
    assert refresh(settings)["products"]["quarantined"] == 1
    table = current_version(settings).products().set_index("product_id")
    assert table.loc["7", "product_name"] == "Son 2"
    assert pd.isna(table.loc["9", "price"])
    assert not table.loc["0", "available"]


@pytest.mark.parametrize(("opened", "closed"), [(3, 9), (8, 9), (3, 5), (2, 7)])
@pytest.mark.parametrize("column", ["name", "category", "description", "that nobody reads"])
def test_an_open_quote_costs_its_own_product(settings, column, opened, closed):
    names = ["product_id", "product_name", "type", "price", "processed_description", "x"]
    at = 1 + ["name", "category", "price", "description", "that nobody reads"].index(column)
    rows = [[f"{number}", "Kem", "Kem", "5", "Mô tả", "x"] for number in range(12)]
    rows[opened][at] = f'"{rows[opened][at]}'
    rows[closed][at] += '" đẹp'
    write_shop(settings, GOOD)
    catalogue = "".join(",".join(fields) + "\n" for fields in [names, *rows])
    (settings.raw / "viecomrec" / "data_product.csv").write_text(catalogue)
    assert refresh(settings, force_full=True)["products"]["quarantined"] == 1
    table = current_version(settings).products()
    expected = {str(number) for number in range(12) if number != opened}
    assert set(table.loc[table["available"], "product_id"]) == expected


def test_lists_in_a_description_are_no_products(settings):
    text = '"Thành phần:\nNước, glycerin, dầu, hương, muối, màu\nAqua,Glycerin,B,C,D,E\n10 ml"'
    write_shop(settings, GOOD, [f"{number},Kem {number},B,Kem,1,{text}" for number in range(5)])
    assert refresh(settings)["products"] | {"unclear_prices": 0} == {
        "valid": 5,
        "quarantined": 0,
        "unclear_prices": 0,
    }


def test_guests_are_no_reason_to_refuse_a_file(settings):
    """Even where most orders are theirs."""
    guests = [row(name, number % 5) for number in range(10) for name in ("0", "guest", "n*****a")]
    write_shop(settings, GOOD + guests)
    summary = refresh(settings)
    assert (summary["rows"]["accepted"], summary["rows"]["quarantined"]) == (10, 30)
    assert set(published_rows(settings)["user_id"]) == {f"u{number}" for number in range(10)}


def test_one_customer_is_one_however_the_id_was_written(settings):
    written = ["443", "443.0", " 443 ", "4.43E+02"]
    rows = [row(user, product) for product, user in enumerate(written)]
    spelled = [row("An Nguye\u0302\u0303n", 1), row("An Nguyễn", 2), row("00443", 3)]
    write_shop(settings, GOOD + rows + spelled)
    refresh(settings)
    counts = published_rows(settings)["user_id"].value_counts()
    assert (counts["443"], counts["An Nguyễn"], counts["00443"]) == (4, 2, 1)


def test_a_renumbered_product_keeps_its_history(settings):
    """On every path: reviews, catalogue, a dropped file and an event of the service."""
    description = (REPOSITORY / "config/sources/viecomrec.yaml").read_text()
    own = settings.home / "config/sources/viecomrec.yaml"
    own.parent.mkdir(parents=True)
    own.write_text(description + "  aliases: {3: 103, 103: 203}\n")
    products = ["203,Tên mới,B,Kem,5,x", "3,Tên cũ,B,Kem,4,x", "1,Son,B,Son,5,x"]
    write_shop(settings, [*GOOD, row("x", 3), row("y", 103), row("z", 203)], products)
    append_events(
        settings,
        [
            {
                "event_id": "e1",
                "user_id": "w",
                "product_id": "3",
                "rating": "5",
                "timestamp": "2025-01-05T10:00:00+00:00",
                "comment": "",
                "received_at": "2025-01-05T10:00:00+00:00",
            }
        ],
    )
    dropped = settings.staging / "files" / "more.csv"
    dropped.parent.mkdir(parents=True, exist_ok=True)
    dropped.write_text(f"{HEADER}\n{row('v', '3.0')}\n")
    refresh(settings)
    rows = published_rows(settings)
    bought = set(rows.loc[rows["product_id"] == "203", "user_id"])
    assert bought >= {"x", "y", "z", "w", "v"}
    table = current_version(settings).products().set_index("product_id")
    assert table.loc["203", "product_name"] == "Tên mới"
    assert not {"3", "103"} & set(table.index)


def test_guests_are_not_the_reason_why_a_dropped_file_is_set_aside(settings):
    write_shop(settings, GOOD)
    dropped = settings.staging / "files" / "more.csv"
    dropped.parent.mkdir(parents=True)
    guests = [row("guest", number) for number in range(5)]
    bad = [row(f"x{number}", 1, rating="tốt") for number in range(3)]
    dropped.write_text("\n".join([HEADER, *guests, *bad, row("v", 1)]) + "\n")
    refresh(settings)
    (reason,) = quarantined(settings)["reason"]
    assert reason.startswith("the file is set aside as a whole, ")
    assert "rows are bad: the rating is not a number (" in reason
