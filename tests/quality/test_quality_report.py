import json
import re
from datetime import UTC, datetime, timedelta

import pytest

from recsys.data.versions import VersionError
from recsys.quality import report_after_publishing, write_report
from recsys.quality.verdicts import judge, overall
from tests.data.shop import END, refresh, row, write_shop

CAMPAIGN = "mua một lần là nghiện luôn nha mọi người"


def reviews(count: int, users: int = 7) -> list[str]:
    return [
        row(user=f"u{n % users}", product=n % 9, rating=1 + n % 5, comment=f"da mịn sau {n} ngày")
        for n in range(count)
    ]


def report(settings, summary):
    page = write_report(settings, summary["version_id"])
    figures = json.loads(page.with_suffix(".json").read_text(encoding="utf-8"))
    return figures, page.read_text(encoding="utf-8")


def test_the_report_counts_what_came_in_and_what_was_refused(settings):
    bad = [row(user="x", rating=9), row(user="x", time="soon"), row(user="", product="2")]
    write_shop(settings, reviews(40) + bad)
    figures, page = report(settings, refresh(settings))
    counts = figures["counts"]
    assert counts["read"] == 43
    assert counts["quarantined"] == 3 == sum(figures["rejected_by_rule"].values())
    assert counts["accepted"] + counts["superseded"] + counts["quarantined"] == counts["read"]
    assert sum(figures["distributions"]["rating"].values()) == counts["accepted"]
    assert sum(figures["distributions"]["comment_length"]) == counts["accepted"]
    assert sum(figures["distributions"]["comment_quality"]) == counts["accepted"]
    assert figures["limits"][0] == {
        "rule": "rows refused",
        "share": round(3 / 43, 4),
        "limit": 0.2,
        "kept": True,
    }
    for name in ("Số sao ngoài khoảng 1–5", "Không đọc được ngày giờ", "Không có mã khách"):
        assert name in page


def test_refused_rows_are_named_by_file_and_row_without_what_stands_there(settings):
    secret = "KH-0912345678"
    bad = [row(user=secret, rating=9, comment="tôi là Lan"), row(user=secret, time="soon")]
    write_shop(settings, reviews(40) + bad)
    summary = refresh(settings)
    figures, page = report(settings, summary)
    file = "data/raw/viecomrec/data_reviews_purchase.csv"
    assert {one["reason"]: one["first"] for one in figures["refused"]} == {
        "the rating is outside 1-5": [{"file": file, "row": 42}],
        "the time cannot be read": [{"file": file, "row": 43}],
    }
    assert f"{file}, dòng 42" in page
    for path in (settings.reports / "data_quality").iterdir():
        text = path.read_text(encoding="utf-8")
        assert secret not in text
        assert "tôi là Lan" not in text
    quarantined = (settings.quarantine / f"{summary['version_id']}.csv").read_text("utf-8")
    assert secret in quarantined


def test_a_page_stands_alone_in_each_language(settings):
    write_shop(settings, reviews(30))
    page = write_report(settings, refresh(settings)["version_id"])
    for path in (page, page.with_suffix(".en.html")):
        text = path.read_text(encoding="utf-8")
        assert text.count("<svg") >= 6
        assert not re.search(r"<(script|img|iframe)\b|https?:", text)


def test_odd_prices_and_those_that_jumped_are_doubted_and_named(settings):
    def products(*prices):
        return [f"{n},Kem {n},B,K,{price},x" for n, price in enumerate(prices)]

    write_shop(settings, reviews(30), products(150_000, 99_000, 250, 500_000))
    figures, page = report(settings, refresh(settings))
    assert figures["prices"] | {"first_odd": 0, "histogram": 0} == {
        "products": 9,  # of the reviews
        "with_price": 4,
        "lowest": 250,
        "median": 124_500,
        "highest": 500_000,
        "odd": 1,
        **{"histogram": 0, "first_odd": 0, "changed": None, "jumped": None, "first_jumps": []},
    }
    assert figures["states"]["prices"] == "doubtful" == figures["state"]
    assert "1 giá quá thấp hay quá cao" in page
    write_shop(settings, reviews(31), products(150_000, 990_000, 120_000, 510_000))
    figures, page = report(settings, refresh(settings, END + timedelta(days=1)))
    assert (figures["prices"]["changed"], figures["prices"]["jumped"]) == (3, 2)
    first = figures["prices"]["first_jumps"][0]
    assert first == {"product": "1", "name": "Kem 1", "price": 990_000, "before": 99_000}
    assert figures["states"]["prices"] == "doubtful"
    assert "99.000" in page
    write_shop(settings, reviews(32), products("", "", "", ""))
    figures, _ = report(settings, refresh(settings, END + timedelta(days=2)))
    assert figures["prices"] is None
    assert figures["states"]["prices"] == "not_judged"
    assert figures["states"]["missing"] == "doubtful"


def test_the_newest_review_is_old_when_the_shop_has_never_paused_so_long(settings):
    days = [row(user=f"d{n}", time=f"2025-01-{n:02} 10:00:00") for n in range(1, 11)]
    write_shop(settings, days)
    figures, page = report(settings, refresh(settings, datetime(2025, 1, 12, tzinfo=UTC)))
    assert figures["dates"]["newest"] == "2025-01-10T03:00:00+00:00"
    assert figures["dates"]["longest_pause_days"] == 1
    assert figures["states"]["dates"] == "sound"
    figures, page = report(settings, refresh(settings, datetime(2025, 1, 20, tzinfo=UTC)))
    # Nothing new: the same version as before tells the same.
    assert figures["states"]["dates"] == "sound"
    write_shop(settings, [*days, row(user="late", time="2025-01-11 10:00:00")])
    figures, page = report(settings, refresh(settings, datetime(2025, 1, 20, tzinfo=UTC)))
    assert figures["states"]["dates"] == "doubtful"
    assert "ngày không có đánh giá mới" in page


def test_a_version_without_a_review_is_not_judged():
    states = judge({"counts": {"accepted": 0}})
    assert set(states.values()) == {"not_judged"}
    assert overall(states) == "not_judged"
    assert overall({"rows": "not_judged", "encoding": "sound"}) == "sound"


def test_what_compares_is_not_judged_without_a_version_before(settings):
    write_shop(settings, reviews(30))
    figures, _ = report(settings, refresh(settings))
    compares = {"rows", "stars", "lengths", "qualities", "missing"}
    assert {name for name, one in figures["states"].items() if one == "not_judged"} >= compares


def test_half_of_a_limit_and_a_tenth_of_the_stars_are_doubted(settings):
    write_shop(settings, reviews(60))
    report(settings, refresh(settings))
    ones = [row(user=f"o{n}", rating=1) for n in range(12)]
    write_shop(settings, [*reviews(38), *ones, *[row(user="x", rating=9)] * 7])
    figures, page = report(settings, refresh(settings, END + timedelta(days=1)))
    for name in ("refused", "stars"):
        assert figures["states"][name] == "doubtful", name
    assert "Số sao" in page


def test_the_report_compares_with_the_version_before(settings):
    write_shop(settings, reviews(20))
    first = refresh(settings)
    assert report(settings, first)[0]["counts_before"] is None
    write_shop(settings, reviews(40))
    figures, page = report(settings, refresh(settings, END + timedelta(days=1)))
    assert figures["compared_with"] == first["version_id"]
    assert figures["counts_before"]["accepted"] == 20
    assert [check["rule"] for check in figures["limits"]] == [
        "rows refused",
        "rows lost since before",
    ]
    assert f"So với phiên bản {first['version_id']}" in page
    assert f'href="{first["version_id"]}.html"' in page


def test_campaigns_and_their_share_are_shown_with_their_text_escaped(settings):
    spam = [
        row(user=f"s{n}", product=1, time=f"2025-01-0{1 + n % 9} 10:00:00", comment=text)
        for n, text in enumerate([CAMPAIGN + " <b>now</b>"] * 12)
    ]
    write_shop(settings, reviews(28) + spam)
    figures, page = report(settings, refresh(settings))
    assert figures["spam_share"] == pytest.approx(12 / figures["counts"]["accepted"], abs=1e-4)
    assert figures["comments"]["campaigns"][0]["users"] == 12
    assert "&lt;b&gt;now" in page


def test_a_run_without_a_new_version_has_no_report(settings):
    summary = {"new_version": False, "version_id": "20250101T000000Z-x"}
    assert report_after_publishing(settings, summary) == {"skipped": "no new version"}


def test_the_summary_of_a_run_names_its_report(settings):
    write_shop(settings, reviews(20))
    summary = report_after_publishing(settings, refresh(settings))
    assert (settings.home / summary["quality_report"]).is_file()


def test_a_version_that_is_not_kept_is_an_error_that_names_it(settings):
    with pytest.raises(VersionError, match="nosuch"):
        write_report(settings, "nosuch")


def twice(text: str) -> str:
    """UTF-8 that somebody read as Windows-1252."""
    return "".join(
        part.encode().decode("cp1252", "ignore") if not part.isascii() else part for part in text
    )


def test_texts_that_are_encoded_twice_are_told_of(settings):
    texts = ["Kem dưỡng ẩm tuyệt vời", "giao hàng nhanh", "đẹp lắm sẽ mua lại"]
    garbled = [row(user=f"g{n}", comment=twice(text)) for n, text in enumerate(texts)]
    names = [twice("Kem dưỡng"), *["Kem dưỡng"] * 8]
    products = [f"{n},{name} {n},B,K,1,x" for n, name in enumerate(names)]
    write_shop(settings, [*reviews(30), row("fine", comment="ÁO ĐẸP ƯNG Ý Ã")], products)
    figures, page = report(settings, refresh(settings))
    assert figures["mojibake"] == {"comments": 0, "products": 1}
    write_shop(settings, reviews(30) + garbled, products)
    figures, page = report(settings, refresh(settings))
    assert figures["mojibake"] == {"comments": 3, "products": 1}
    assert "3 bình luận và 1 tên sản phẩm bị mã hóa hai lần" in page
    assert figures["states"]["encoding"] == "doubtful"
