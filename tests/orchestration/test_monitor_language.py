"""The texts of the pages, and the forms of numbers, days and times."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from string import Formatter
from zoneinfo import ZoneInfo

import pytest

from recsys import language
from recsys.orchestration import monitor
from recsys.orchestration.monitor.language import LANGUAGES, Language, preferred, texts

FOLDER = Path(monitor.__file__).parent
NOW = datetime(2026, 3, 9, 20, 30, tzinfo=UTC)
VI, EN = (Language(code, ZoneInfo("Asia/Ho_Chi_Minh")) for code in ("vi", "en"))


def blanks(text: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(text) if name is not None}


def test_every_language_has_every_text_with_the_same_blanks() -> None:
    vi = texts("vi")
    for code in LANGUAGES:
        assert texts(code).keys() == vi.keys()
        for name, text in texts(code).items():
            assert text.strip(), name
            assert blanks(text) == blanks(vi[name]), name


def test_every_text_that_the_pages_name_is_there_and_no_other() -> None:
    """A name is written as a whole, or as the beginning of a group of names."""
    sources = [Path(language.__file__), *FOLDER.glob("*.py"), *FOLDER.glob("templates/*")]
    written = "\n".join(path.read_text(encoding="utf-8") for path in sources)
    named = set(re.findall(r"\b(?:t|say|count)\(\s*[\"']([\w.]+)[\"']", written))
    groups = {name.rstrip(".") for name in named if name.endswith((".", "_"))}
    named -= {name for name in named if name.endswith((".", "_"))}
    groups |= set(re.findall(r"known\(\s*[\"']([\w.]+)[\"']", written))
    groups |= {one.rstrip(".") for one in re.findall(r"[\"'(]([a-z_.]+[._])[\"'] ~", written)}
    groups |= {one.rstrip(".") for one in re.findall(r"f\"([a-z_.]+\.)\{", written)}
    known = texts("en").keys()
    assert named <= known | {name.removesuffix(".one") for name in known}
    unused = {
        name
        for name in known
        if name.removesuffix(".one") not in named
        and not any(name.startswith((f"{group}.", group)) for group in groups)
    }
    assert unused == set()


def test_every_kind_of_task_has_its_three_sentences() -> None:
    source = (FOLDER / "today.py").read_text(encoding="utf-8")
    kinds = set(re.findall(r"Task\(\w+, \"(\w+)\"", source))
    assert len(kinds) > 10
    for kind in kinds:
        for part in ("", ".means", ".do"):
            assert f"task.{kind}{part}" in texts("vi")


def test_numbers_and_times_have_the_form_of_the_language() -> None:
    assert (VI.number(1234567.891, 1), EN.number(1234567.891, 1)) == ("1.234.567,9", "1,234,567.9")
    assert (VI.percent(0.0512, 2), EN.percent(0.0512, 2)) == ("5,12%", "5.12%")
    assert [VI.duration(one) for one in (None, 0.42, 75, 900, 12_600)] == [
        *("–", "0,4 giây", "75 giây", "15 phút", "3,5 giờ")
    ]
    assert [EN.duration(one) for one in (0.42, 900, 12_600)] == ["0.4 s", "15 min", "3.5 h"]
    # In the shop it is the next day.
    assert (VI.moment(NOW), EN.moment(NOW)) == ("10/03/2026 03:30", "10 Mar 2026, 03:30")
    assert (VI.day("2026-03-09"), EN.day("2026-03-09")) == ("09/03/2026", "9 Mar 2026")
    assert VI.day(NOW.isoformat()) == "10/03/2026"
    assert VI.moment("not a time") == VI.day(None) == VI.number(None) == VI.percent(None) == "–"


def test_how_long_ago_reads_as_people_say_it() -> None:
    assert VI.ago(NOW - timedelta(hours=30), NOW) == "1 ngày trước"
    assert EN.ago(NOW - timedelta(hours=30), NOW) == "1 day ago"
    assert EN.ago(NOW - timedelta(minutes=5), NOW) == "5 minutes ago"
    assert VI.ago((NOW + timedelta(minutes=2)).isoformat(), NOW) == "sau 2 phút"
    assert VI.ago("not a time", NOW) == "–"
    assert VI.ago(NOW, NOW) == "vừa xong"


@pytest.mark.parametrize(
    ("cookie", "accepted", "code"),
    [
        (None, "", "vi"),
        (None, "en-GB,en;q=0.9", "en"),
        (None, "fr-FR,vi;q=0.8,en;q=0.7", "vi"),
        (None, "fr", "vi"),
        ("vi", "en", "vi"),
        ("../en", "en-US", "en"),
    ],
)
def test_the_language_is_the_chosen_one_or_the_browsers(
    cookie: str | None, accepted: str, code: str
) -> None:
    assert preferred(cookie, accepted) == code
