import json
import re
from datetime import timedelta

import pytest

from recsys.data.versions import VersionError
from recsys.quality import report_after_publishing, write_report
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
    for rule in figures["rejected_by_rule"]:
        assert rule in page


def test_the_page_stands_alone_and_has_six_plots(settings):
    write_shop(settings, reviews(30))
    _, page = report(settings, refresh(settings))
    assert page.count("<svg") == 6
    assert not re.search(r"<(script|link|img|iframe)\b", page)


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
    assert "Compared with" in page


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
    assert "look doubly encoded" in page
