"""The pages that the jobs write, and the figures of the newest one about outcomes."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, Final, NamedTuple

from recsys.errors import InputError
from recsys.experiments.definitions import Experiment
from recsys.experiments.state import Experiments
from recsys.language import LANGUAGES
from recsys.orchestration.monitor.sections import Section, section
from recsys.reporting import is_plain, page_in
from recsys.settings import Settings

KINDS: Final = {
    "drift": "drift_report_*.html",
    "data_quality": "*.html",
    "outcomes": "outcomes_*.html",
    "experiments": "*.html",
}
"""Folder below ``reports/`` -> which of its files are pages, in all languages. Their names sort by
time, but for those of experiments."""

LISTED: Final = 5
"""Pages of a kind that are shown at once; the older ones are folded away."""


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
        path = page_in(self.path, code)
        return path.name if path.is_file() else self.name

    @property
    def title(self) -> str:
        return self.path.stem.removeprefix("drift_report_").removeprefix("outcomes_")

    @property
    def day(self) -> str | None:
        """The ISO date that the name begins with, if it does."""
        digits = self.title[:8]
        if len(digits) < 8 or not digits.isdigit():
            return None
        return f"{digits[:4]}-{digits[4:6]}-{digits[6:]}"


class Outcomes(NamedTuple):
    """The last report of outcomes: its page, days with lists (ISO), totals, rates (each with
    ``value``, ``low``, ``high``)."""

    page: ReportPage
    days: tuple[str, ...]
    totals: Mapping[str, float]
    rates: Mapping[str, Mapping[str, float | None]]


class Reports(NamedTuple):
    """All pages by kind, the severity of the newest `LISTED` about drift by name, the newest
    figures of outcomes, and the experiments that run: they have no page in their first hour."""

    pages: Mapping[str, Section[list[ReportPage]]]
    severity: Mapping[str, str | None]
    outcomes: Section[Outcomes]
    experiments: Section[list[Experiment]]


def gather_reports(settings: Settings) -> Reports:
    """What the page of reports shows."""
    pages = {kind: section(partial(list_pages, settings, kind)) for kind in KINDS}
    newest = (pages["drift"].content or [])[:LISTED]
    return Reports(
        pages,
        {page.name: drift_severity(page) for page in newest},
        section(lambda: read_outcomes(settings)),
        section(lambda: Experiments(settings).running()),
    )


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


def read_outcomes(settings: Settings) -> Outcomes | None:
    """The newest report about outcomes, None without one. Raises `InputError` if it is none."""
    page = next(iter(list_pages(settings, "outcomes")), None)
    if page is None:
        return None
    path = page.path.with_suffix(".json")
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        return Outcomes(
            page=page,
            days=tuple(str(one["day"]) for one in report["days"]),
            totals={key: float(value) for key, value in report["totals"].items()},
            rates={key: dict(rate) for key, rate in report["rates"].items()},
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: is no report of outcomes: {error!r}") from error


def pages_of_run(settings: Settings, summary: Mapping[str, Any] | None) -> list[ReportPage]:
    """The pages that the results of a run's tasks name, each once."""
    results = (one for one in (summary or {}).values() if isinstance(one, Mapping))
    texts = (value for one in results for value in one.values() if isinstance(value, str))
    named = (parts for text in dict.fromkeys(texts) if len(parts := PurePosixPath(text).parts) == 3)
    found = (find_page(settings, kind, name) for top, kind, name in named if top == "reports")
    return [page for page in found if page is not None]
