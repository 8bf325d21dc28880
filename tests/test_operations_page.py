"""The page of operations has the everyday tasks, and no page for newcomers leads astray."""

import re

import pytest

from tests.documented import pages, table

ENGLISH, VIETNAMESE = "docs/operations.md", "docs/operations.vi.md"
FIRST_HOUR = "docs/first-hour.md", "docs/first-hour.vi.md"
TASKS = 12


@pytest.mark.parametrize(("page", "heading"), [(ENGLISH, "task"), (VIETNAMESE, "việc")])
def test_the_everyday_tasks_stand_in_one_table_each_with_a_way_on(page: str, heading: str) -> None:
    rows = table(page, heading)
    assert len(rows) == TASKS
    for row in rows:
        assert len(row) == 3, row
        assert re.search(r"\]\([^)]+\)", row[2]), row


@pytest.mark.parametrize("page", [ENGLISH, VIETNAMESE, *FIRST_HOUR])
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
