"""The pages that the jobs write, week by week."""

import json
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, Final, NamedTuple

from recsys.language import LANGUAGES
from recsys.orchestration.monitor.sections import Section, section
from recsys.reporting import is_plain, name_in
from recsys.settings import Settings

KINDS: Final = {
    "drift": "drift_report_*.html",
    "data_quality": "*.html",
    "outcomes": "outcomes_*.html",
    "experiments": "*.html",
}
"""Folder below ``reports/`` -> which of its files are pages, in all languages. Their names sort by
time, but for those of experiments."""

WEEKLY: Final = ("drift", "data_quality", "outcomes")
"""Kinds whose pages are of a day, which their names begin with."""
WEEKS: Final = 13


class ReportPage(NamedTuple):
    """A page: its kind, the name of its file, when it was written (UTC)."""

    kind: str
    path: Path
    written_at: datetime

    @property
    def name(self) -> str:
        return self.path.name

    def name_in(self, code: str) -> str:
        """Its name in a language, or the plain one if it was written in one language only."""
        return name_in(self.path, code)

    @property
    def title(self) -> str:
        return self.path.stem.removeprefix("drift_report_").removeprefix("outcomes_")

    @property
    def day(self) -> str | None:
        """The ISO date that the name begins with, if it does."""
        digits = self.title[:8]
        with suppress(ValueError):
            return str(date.fromisoformat(digits)) if digits.isdecimal() else None
        return None


class Week(NamedTuple):
    """The pages of a week by kind, the newest of each first; `monday` is an ISO date, `severity`
    that of the page about drift."""

    monday: str
    pages: Mapping[str, list[ReportPage]]
    severity: str | None


class Reports(NamedTuple):
    """The newest `WEEKS` that have a report, newest first, and all pages by kind."""

    weeks: list[Week]
    pages: Mapping[str, Section[list[ReportPage]]]


def gather_reports(settings: Settings) -> Reports:
    """What the page of reports shows."""
    pages = {kind: section(partial(list_pages, settings, kind)) for kind in KINDS}
    weeks: dict[str, dict[str, list[ReportPage]]] = {}
    for kind in WEEKLY:
        for page in pages[kind].content or ():
            if page.day is not None:
                weeks.setdefault(_monday(page.day), {}).setdefault(kind, []).append(page)
    newest = sorted(weeks, reverse=True)[:WEEKS]
    return Reports([_week(monday, weeks[monday]) for monday in newest], pages)


def _week(monday: str, pages: Mapping[str, list[ReportPage]]) -> Week:
    drift = next(iter(pages.get("drift", ())), None)
    return Week(monday, pages, None if drift is None else drift_severity(drift))


def _monday(day: str) -> str:
    at = date.fromisoformat(day)
    return str(at - timedelta(days=at.weekday()))


def list_pages(settings: Settings, kind: str) -> list[ReportPage]:
    """The pages of `kind`, newest first; none for an unknown kind or a missing folder."""
    paths = (settings.reports / kind).glob(KINDS[kind]) if kind in KINDS else ()
    pages = [
        ReportPage(kind, path, datetime.fromtimestamp(path.stat().st_mtime, UTC))
        for path in sorted(paths, reverse=True)
        if path.is_file()
        and not path.is_symlink()
        and not path.name.startswith(".")
        and is_plain(path)
    ]
    if kind == "experiments":
        pages.sort(key=lambda page: page.written_at, reverse=True)
    return pages


def find_page(settings: Settings, kind: str, name: str) -> ReportPage | None:
    """The page that has that name in some language, if the folder lists it. The name is compared,
    never opened."""
    for page in list_pages(settings, kind):
        if name in {page.name_in(code) for code in LANGUAGES}:
            return page._replace(path=page.path.with_name(name))
    return None


def drift_severity(page: ReportPage) -> str | None:
    """The overall severity in the JSON beside a drift page; None if that cannot be read."""
    try:
        report = json.loads(page.path.with_suffix(".json").read_text(encoding="utf-8"))
        return str(report["overall_severity"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def pages_of_run(settings: Settings, summary: Mapping[str, Any] | None) -> list[ReportPage]:
    """The pages that the results of a run's tasks name, each once."""
    results = (one for one in (summary or {}).values() if isinstance(one, Mapping))
    texts = (value for one in results for value in one.values() if isinstance(value, str))
    named = (parts for text in dict.fromkeys(texts) if len(parts := PurePosixPath(text).parts) == 3)
    found = (find_page(settings, kind, name) for top, kind, name in named if top == "reports")
    return [page for page in found if page is not None]
