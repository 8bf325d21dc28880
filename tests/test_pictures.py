"""Every picture of the pages can be made anew, and is looked at."""

import re

from benchmarks.docs.pictures import DRAWN, FOLDER, PICTURES
from tests.documented import pages


def test_each_picture_of_the_docs_is_made_by_the_command_and_shown_on_a_page() -> None:
    there = {path.stem for path in FOLDER.glob("*.png")}
    assert there == PICTURES.keys() | DRAWN
    shown = {
        name
        for text in pages().values()
        for name in re.findall(r"\]\((?:docs/)?([\w.-]+)\.png\)", text)
    }
    assert shown == there
