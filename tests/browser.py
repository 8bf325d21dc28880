"""Chromium, as the distribution has it, for tests that look at pages with a browser's eyes."""

import os
import shutil
from collections.abc import Iterator

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

PHONE, DESK = 390, 1400
"""Widths of a window, in pixels."""


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
