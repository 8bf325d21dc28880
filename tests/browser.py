"""Chromium, as the distribution has it, for tests that look at pages with a browser's eyes."""

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

from recsys.language import read_texts

PHONE, DESK = 390, 1400
"""Widths of a window, in pixels."""

# What a reader reads, but for what is marked as being in another language, names and code.
_READ = """() => {
  const skipped = "code, pre, [lang=en], [translate=no], script, style, .languages";
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const texts = [];
  while (walker.nextNode())
    if (!walker.currentNode.parentElement.closest(skipped)) texts.push(walker.currentNode.data);
  return texts.join(" ");
}"""


def chromium() -> Iterator[Browser]:
    """A browser without a window. The body of a fixture; skips where there is none."""
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("no chromium, which tests/cluster/packages.sh installs")
    # Chromium has no sandbox for root.
    options = ["--no-sandbox"] if os.getuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=options)
        yield browser
        browser.close()


def serious_faults(page: Page) -> list[str]:
    """What axe finds to be serious or critical, with the first element of each."""
    found = Axe().run(page).response["violations"]
    return [
        f"{one['id']}: {one['nodes'][0]['html'][:200]} {one['nodes'][0].get('failureSummary', '')}"
        for one in found
        if one["impact"] in ("serious", "critical")
    ]


def wider_than_the_window(page: Page) -> int:
    """By how many pixels."""
    return int(page.evaluate("document.documentElement.scrollWidth - innerWidth"))


def english(*folders: Path) -> set[str]:
    """Words that no Vietnamese page needs: those of the English texts in `folders` that no
    Vietnamese text there has, and words in which programs like to speak."""
    known = {"en": set[str](), "vi": set[str]()}
    for code, words in known.items():
        for folder in folders:
            for text in read_texts(folder, code).values():
                words |= _words(re.sub(r"\{.*?\}", "", text))
    return (known["en"] | {"error", "none", "null", "true", "false", "unknown"}) - known["vi"]


def read_words(page: Page) -> set[str]:
    """The words that a reader of the page reads, of the letters that English has; a part of a
    name_with_lines or of recall@10 is none."""
    return _words(page.evaluate(_READ))


def _words(text: str) -> set[str]:
    return set(re.findall(r"(?<![a-z_])[a-z]{3,}(?![a-z_@])", text.lower()))
