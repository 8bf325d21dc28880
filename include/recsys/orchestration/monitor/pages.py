"""The report pages that the monitor serves: those found in their folders, by name."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any, Final

from recsys.settings import Settings

KINDS: Final = {"drift": "drift_report_*.html", "data_quality": "*.html"}
"""Folder below ``reports/`` -> which of its files are pages. Their names sort by time."""


@dataclass(frozen=True)
class ReportPage:
    """A page: its kind, the name of its file, when it was written (UTC)."""

    kind: str
    path: Path
    written_at: datetime

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def title(self) -> str:
        return self.path.stem.removeprefix("drift_report_")


def list_pages(settings: Settings, kind: str) -> list[ReportPage]:
    """The pages of `kind`, newest first; none for an unknown kind or a missing folder."""
    pattern = KINDS.get(kind)
    if pattern is None:
        return []
    found = []
    for path in (settings.reports / kind).glob(pattern):
        if path.is_symlink() or not path.is_file() or path.name.startswith("."):
            continue
        written = datetime.fromtimestamp(path.stat().st_mtime, UTC)
        found.append(ReportPage(kind, path, written))
    return sorted(found, key=lambda page: page.name, reverse=True)


def find_page(settings: Settings, kind: str, name: str) -> ReportPage | None:
    """The page of that name if the folder lists it. The name is compared, never opened."""
    return next((page for page in list_pages(settings, kind) if page.name == name), None)


def drift_severity(page: ReportPage) -> str | None:
    """The overall severity in the JSON beside a drift page; None if that cannot be read."""
    try:
        report = json.loads(page.path.with_suffix(".json").read_text(encoding="utf-8"))
        return str(report["overall_severity"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def pages_of_run(settings: Settings, summary: Mapping[str, Any] | None) -> list[ReportPage]:
    """The pages that the results of a run's tasks name, each once."""
    named = dict.fromkeys(_named_pages(summary or {}))
    found = [find_page(settings, kind, name) for kind, name in named]
    return [page for page in found if page is not None]


def _named_pages(summary: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for result in summary.values():
        for value in result.values() if isinstance(result, Mapping) else ():
            parts = PurePosixPath(value).parts if isinstance(value, str) else ()
            if len(parts) == 3 and parts[0] == "reports" and parts[1] in KINDS:
                yield parts[1], parts[2]
