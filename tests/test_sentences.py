"""What the product said in English, told in Vietnamese: the catalogue and how it is applied."""

import ast
import re
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta, timezone
from pathlib import Path
from string import Formatter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.experiments.verdicts import Verdict
from recsys.language import Language, read_texts
from recsys.pages import templates
from recsys.sentences import CATALOGUES, Kind, tell
from recsys.settings import REPOSITORY

CATALOGUE = read_texts(CATALOGUES, "vi")
SOURCES = sorted(
    path for root in ("include/recsys", "serving") for path in (REPOSITORY / root).rglob("*.py")
)
# What these raise is read in a terminal.
TERMINAL = ("cli", "upkeep", "simulation")
VI = Language("vi", timezone(timedelta(hours=7)), {})
EN = Language("en", timezone(timedelta(hours=7)), {})


def shape(text: str) -> str:
    """A text with blanks, whatever these are called."""
    parts = Formatter().parse(text)
    return "".join(literal + ("{}" if name is not None else "") for literal, name, *_ in parts)


def said(node: ast.AST) -> str | None:
    """The shape of a string or an f-string of the source."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(said(one) or "{}" for one in node.values)
    return None


def all_said() -> set[str]:
    found = set()
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            text = said(node)
            if text is not None:
                found.add(text)
            if isinstance(node, ast.Constant) and text is not None:
                with suppress(ValueError):  # text with blanks that are filled in later
                    found.add(shape(text))
    return found


def raised() -> Iterator[tuple[str, str]]:
    """Place and shape of each sentence that an error is raised with and a page can show."""
    for path in SOURCES:
        place = path.relative_to(REPOSITORY)
        if set(place.parts[:3]) & {*TERMINAL}:
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(node, ast.Raise) or not isinstance(node.exc, ast.Call):
                continue
            for argument in node.exc.args[:1]:
                text = said(argument)
                if text is not None and len(re.findall(r"[a-z]{2,}", text.replace("{}", ""))) > 1:
                    yield f"{place}:{node.lineno}", text


def told_text(text: str) -> str:
    return "".join(one.text for one in tell(text, VI))


def test_every_sentence_of_the_catalogue_is_one_of_the_source() -> None:
    known = all_said()
    assert [one for one in CATALOGUE if shape(one) not in known] == []


def test_what_is_raised_is_in_the_catalogue() -> None:
    known = {shape(one) for one in CATALOGUE}
    assert [one for one in raised() if one[1] not in known] == []


def test_no_two_sentences_of_the_catalogue_are_alike() -> None:
    shapes = [shape(one) for one in CATALOGUE]
    assert len(shapes) == len(set(shapes))


def test_no_two_blanks_of_a_sentence_stand_side_by_side() -> None:
    assert [one for one in CATALOGUE if "{}{}" in shape(one)] == []


def test_a_sentence_has_the_same_blanks_in_both_languages() -> None:
    def blanks(text: str) -> set[str | None]:
        return {name for _, name, *_ in Formatter().parse(text) if name is not None}

    def forms(text: str) -> set[str | None]:
        return {form for _, name, form, _ in Formatter().parse(text) if name is not None}

    for one, told in CATALOGUE.items():
        assert blanks(one) == blanks(told), one
        assert forms(one) <= {""}, one
        assert forms(told) <= {"", "number", "day", "moment", "word"}, one


def test_every_sentence_is_recognised_with_its_blanks_filled() -> None:
    for one, told in CATALOGUE.items():
        names = {name for _, name, *_ in Formatter().parse(one) if name}
        blanks = {name: _Blank(f"({name.upper()})") for name in names}
        assert told_text(one.format_map(blanks)) == told.format_map(blanks), one


class _Blank(str):
    """A value that takes any form."""

    __slots__ = ()

    def __format__(self, form: str) -> str:
        return str(self)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (
            "1,200 lists and 40 events of 2026-11-25 to 2026-11-28",
            "1.200 danh sách và 40 sự kiện từ 25/11/2026 đến 28/11/2026",
        ),
        (
            "the canary failed: fallback_rate=0.100, the serving model als_1 has 0.050",
            "chạy thử canary không đạt: fallback_rate=0,100, mô hình đang phục vụ als_1 có 0,050",
        ),
        (  # joined, with figures
            "beats popularity (0.1234 against 0.1000 recall@10); does not lose to recent "
            "popularity in time windows (0.2000 against 0.1500)",
            "hơn danh sách bán chạy (recall@10 0,1234 so với 0,1000); không thua danh sách bán "
            "chạy gần đây trong các khoảng thời gian (0,2000 so với 0,1500)",
        ),
        (  # behind a file and a key, with what was found there
            "/x/data.yaml: max_new_rows of 'a': expected a whole number (got 'b')",
            "/x/data.yaml: max_new_rows of 'a': cần một số nguyên (đang là 'b')",
        ),
        (  # one in another
            "als_1 was not deployed: /x/registry.json: the file is empty; run it again",
            "als_1 không được triển khai: /x/registry.json: tệp rỗng; hãy chạy lại",
        ),
        (
            "none of the 1034 rows read is valid: there is no user (rows: 1030); there is no "
            "product (rows: 4)",
            "không dòng nào trong 1034 dòng đã đọc là hợp lệ: không có mã khách (1030 dòng); "
            "không có mã sản phẩm (4 dòng)",
        ),
        (  # with moments
            "a data interval ends before it starts: 2026-11-28T02:00:00+00:00 - "
            "2026-11-27T02:00:00+00:00",
            "khoảng dữ liệu kết thúc trước khi bắt đầu: 28/11/2026 09:00 - 27/11/2026 09:00",
        ),
    ],
)
def test_sentences_that_were_put_together_are_told_part_by_part(said: str, told: str) -> None:
    assert told_text(said) == told


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (
            "1,200 lists and 40 events of 2026-11-25 to 2026-11-28",
            "1.200 danh sách và 40 sự kiện từ 25/11/2026 đến 28/11/2026",
        ),
        (
            "the canary failed: fallback_rate=0.100, the serving model als_1 has 0.050",
            "chạy thử canary không đạt: fallback_rate=0,100, mô hình đang phục vụ als_1 có 0,050",
        ),
        ("lists of product have 8 places", "danh sách ở product có 8 chỗ"),
        (
            "user_id: more than 9 events of one user in a day are not plausible; it is kept in "
            "quarantine",
            "user_id: hơn 9 sự kiện của cùng một mã khách trong một ngày là không hợp lý; sự kiện "
            "được giữ trong khu cách ly",
        ),
        (
            "x.json: jobs.nothing: the job has no entry",
            "x.json: jobs.nothing: công việc này không có mục nào",
        ),
        ("the user is not an id", "mã khách không hợp lệ"),
        ("the service is no_model", "tình trạng của dịch vụ: chưa có mô hình"),
    ],
)
def test_a_word_is_told_only_where_it_is_one_of_the_product(said: str, told: str) -> None:
    assert told_text(said) == told


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (
            "1,200 lists and 40 events of 2026-11-25 to 2026-11-28",
            "1.200 danh sách và 40 sự kiện từ 25/11/2026 đến 28/11/2026",
        ),
        (
            "the canary failed: fallback_rate=0.100, the serving model als_1 has 0.050",
            "chạy thử canary không đạt: fallback_rate=0,100, mô hình đang phục vụ als_1 có 0,050",
        ),
        ("it ended at 2026-11-27 22:38 +0700; x", "đã hết hạn lúc 27/11/2026 22:38; x"),
        ("not done when due at 2026-11-28 02:00:00 +07", "28/11/2026 02:00"),
        ("expected a time after 2026-13-45", "cần một thời điểm sau 2026-13-45"),
        ("expected a time after abcdefghij", "cần một thời điểm sau abcdefghij"),
        ("r: its logical date is in the future, at 9999-12-31T23:59:59+00:00", "9999-12-31T23:59"),
    ],
)
def test_a_moment_is_told_in_the_form_of_the_page_or_left_as_it_is(said: str, told: str) -> None:
    found = told_text(said.replace("; x", "; take it out of the file"))
    assert told.removesuffix("; x") in found


def test_what_went_wrong_inside_is_told_if_all_of_it_is_ours() -> None:
    assert tell("x.json: cannot be read: expected numbers up to 1e+15", VI) == [
        ("x.json", Kind.NAME),
        (": không đọc được: cần số không quá ", Kind.TOLD),
        ("1e+15", Kind.NAME),
    ]
    assert told_text("x.yaml: line 3: the key 'a' stands there twice").startswith("x.yaml: dòng 3")
    found = tell("expected an encoding of text such as 'cp1258': unknown encoding: x (got 'x')", VI)
    assert ("unknown encoding: x", Kind.FOREIGN) in found


def test_verdicts_of_experiments_are_known_from_their_own_texts() -> None:
    facts = {"winner": "moi", "side": "moi", "control": "cu", "metric": "clicks_per_list"}
    facts |= {"value": 0.0523, "low": 0.01, "high": 0.09}
    verdict = Verdict("winner", "won", facts, "moi")
    assert told_text(verdict.english) == verdict.said("vi")
    assert told_text("x: " + verdict.english) == "x: " + verdict.said("vi")


def test_what_another_program_said_stays_as_it_is() -> None:
    found = tell("/x/y.csv: cannot be read: [Errno 5] Input/output error", VI)
    assert [one.kind for one in found] == [Kind.NAME, Kind.TOLD, Kind.FOREIGN]
    assert found[-1].text == "[Errno 5] Input/output error"
    for unknown in (
        "Connection reset by peer",
        "HTTPConnectionPool(host='x', port=80): Read timed out. (read timeout=3); gave up",
        "[Errno 28] No space left on device: '/x/y.csv' is full (os error 28)",
        "could not translate host name: Name or service not known",
    ):
        assert tell(unknown, VI) == [(unknown, Kind.FOREIGN)]
        assert tell(f"expected a number; {unknown}", VI)[0] == ("cần một số; ", Kind.TOLD)


def test_in_english_it_is_what_was_said() -> None:
    assert tell("expected a number", EN) == [("expected a number", Kind.TOLD)]


@given(st.text(min_size=1))
def test_any_text_is_told_somehow(text: str) -> None:
    assert tell(text, VI)


def test_a_page_marks_what_has_no_language_and_what_stays_english(tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text("{{ said | told(language, most) }}")
    page = templates(tmp_path).get_template("page.html")
    said = "/x/<y>: cannot be read: no <such> thing"
    shown = page.render(said=said, language=VI, most=None)
    assert shown == (
        '<span translate="no">/x/&lt;y&gt;</span>: không đọc được: '
        '<span lang="en" translate="no">no &lt;such&gt; thing</span>'
    )
    assert page.render(said=said, language=VI, most=9).endswith(": k…")
