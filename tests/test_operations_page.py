"""The page of operations is the same in both languages, and has the everyday tasks."""

import re

import pytest

from tests.documented import pages, spans, table

ENGLISH, VIETNAMESE = "docs/operations.md", "docs/operations.vi.md"
TASKS = 12


def commands(page: str) -> list[str]:
    """Every line of code, without its comment."""
    blocks = re.findall(r"^ *```\w*\n(.*?)^ *```", pages()[page], re.DOTALL | re.MULTILINE)
    return [line.split("  #")[0].rstrip() for block in blocks for line in block.splitlines()]


def named(page: str) -> set[str]:
    """What stands as code outside of blocks, and where links lead."""
    text = re.sub(r"^ *```.*?^ *```", "", pages()[page], flags=re.DOTALL | re.MULTILINE)
    links = re.findall(r"\]\(([^)#]+)", text)
    return {
        *spans(text),
        *(link for link in links if link not in ("operations.md", "operations.vi.md")),
    }


def test_the_vietnamese_page_has_every_section_command_and_name_of_the_english_one() -> None:
    english, vietnamese = (
        re.findall(r"^## ", pages()[p], re.MULTILINE) for p in (ENGLISH, VIETNAMESE)
    )
    assert len(english) == len(vietnamese)
    assert commands(ENGLISH) == commands(VIETNAMESE)
    assert named(ENGLISH) == named(VIETNAMESE)


@pytest.mark.parametrize(("page", "heading"), [(ENGLISH, "task"), (VIETNAMESE, "việc")])
def test_the_everyday_tasks_stand_in_one_table_each_with_a_way_on(page: str, heading: str) -> None:
    rows = table(page, heading)
    assert len(rows) == TASKS
    for row in rows:
        assert len(row) == 3, row
        assert re.search(r"\]\([^)]+\)", row[2]), row


@pytest.mark.parametrize("page", [ENGLISH, VIETNAMESE, "docs/first-hour.md"])
def test_every_link_of_the_page_leads_somewhere(page: str) -> None:
    for link in re.findall(r"\]\(([^):]+)\)", pages()[page]):
        file, _, anchor = link.partition("#")
        target = f"docs/{file}" if file else page
        if not target.endswith(".md"):
            continue
        headings = re.findall(r"^#+ (.*)", pages()[target], re.MULTILINE)
        assert not anchor or anchor in map(anchor_of, headings), link


def anchor_of(heading: str) -> str:
    """As GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
