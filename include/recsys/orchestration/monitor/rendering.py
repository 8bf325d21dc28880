"""The monitor's pages as HTML."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from recsys.config import ConfigError
from recsys.orchestration.monitor.customers import LONGEST, Requests
from recsys.orchestration.monitor.overview import (
    PAGES,
    STATS_DAYS,
    Overview,
    ReportPage,
    Section,
    summary_of,
)
from recsys.orchestration.monitor.rules import Rules
from recsys.pages import templates
from recsys.schedule import load_zone
from recsys.settings import Settings

DASH: Final = "–"
_UNITS: Final = ((86_400, "ngày"), (3_600, "giờ"), (60, "phút"), (1, "giây"))


class Renderer:
    """Fills the templates; times are shown in the time zone of the schedule."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._environment = templates(Path(__file__).parent / "templates")
        self._environment.filters |= {
            "duration": duration,
            "percent": percent,
            "curve": curve,
            "amount": amount,
            "segment": lambda text: quote(str(text), safe=""),
            "pretty": lambda value: json.dumps(value, ensure_ascii=False, indent=2, default=str),
        }
        self._environment.globals |= {"stats_days": STATS_DAYS, "listed": PAGES}

    def overview(self, root: str, overview: Overview, now: datetime) -> str:
        """The page that shows everything, as of `now`."""
        return self.render("overview.html", root, overview=overview, now=now)

    def run(
        self, root: str, run: Mapping[str, Any], pages: Sequence[ReportPage], airflow: str | None
    ) -> str:
        """One run of the tracker with the reports it made; `airflow` is the run's path in Airflow's
        UI, None where a link there leads nowhere."""
        shown = {"run": run, "summary": summary_of(run), "pages": pages}
        return self.render("run.html", root, **shown, airflow_path=airflow, now=datetime.now(UTC))

    def rules(
        self,
        root: str,
        found: Section[Rules],
        placements: Sequence[str],
        asked: Mapping[str, str] | None = None,
        shown: Mapping[str, Any] | None = None,
        refused: str | None = None,
    ) -> str:
        """The shop's rules and the form for a preview in one of the `placements`; what was `asked`
        by it, and the answer of the service or why there is none."""
        form = {"user_id": "", "product_id": "", "placement": ""} | dict(asked or {})
        answer = {"asked": form, "shown": shown, "refused": refused}
        return self.render("rules.html", root, rules=found, placements=placements, **answer)

    def customers(
        self,
        root: str,
        found: Section[Requests],
        given: str = "",
        opened: Sequence[int] = (),
        refused: str | None = None,
    ) -> str:
        """What customers asked for and the form that forgets some; what was `given` to it, and the
        numbers of the requests that it `opened` or why there are none."""
        answer = {"given": given, "opened": opened, "refused": refused, "longest": LONGEST}
        return self.render("customers.html", root, requests=found, **answer)

    def render(self, template: str, root: str, **values: Any) -> str:
        """The template with `values`; `root` is the path that links begin with."""
        zone = _zone(self._settings)

        def local(moment: datetime | str | None, form: str = "%d/%m %H:%M") -> str:
            known = _moment(moment)
            return DASH if known is None else known.astimezone(zone).strftime(form)

        return self._environment.get_template(template).render(
            root=root, local=local, ago=ago, **values
        )


def duration(seconds: float | None) -> str:
    """``0.4 s``, ``75 s``, ``12 min``, ``3.5 h``."""
    if seconds is None:
        return DASH
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7_200 else f"{seconds / 3_600:.1f} h"


def percent(share: float | None) -> str:
    """``83 %``; a dash for what is not known."""
    return DASH if share is None else f"{share:.0%}".replace("%", " %")


def curve(values: Sequence[float], width: int = 240, height: int = 40) -> str:
    """The points of a line through `values`, from zero upwards, for a picture of that size.

    >>> curve([0.0, 1.0, 0.5], 20, 10)
    '0,10 10,0 20,5'
    """
    step, top = width / max(1, len(values) - 1), max([*values, 0.0]) or 1.0
    ends = ((number * step, height * (1 - value / top)) for number, value in enumerate(values))
    return " ".join(f"{x:.4g},{y:.4g}" for x, y in ends)


def amount(value: Any) -> str:
    """A number without what does not matter, several values with commas: ``6,000``, ``0.5``."""
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return f"{value:,.15g}" if isinstance(value, int | float) else str(value)


def ago(moment: datetime | str | None, now: datetime) -> str:
    """How long before (or after) `now` a moment is, in its largest unit, in Vietnamese."""
    if (known := _moment(moment)) is None:
        return DASH
    seconds = (now - known).total_seconds()
    for size, name in _UNITS:
        if abs(seconds) >= size:
            count = int(abs(seconds) // size)
            return f"{count} {name} trước" if seconds > 0 else f"sau {count} {name}"
    return "vừa xong"


def _moment(moment: datetime | str | None) -> datetime | None:
    """Stored moments are ISO text; those without a zone are UTC."""
    if isinstance(moment, str):
        try:
            moment = datetime.fromisoformat(moment)
        except ValueError:
            return None
    if moment is None:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _zone(settings: Settings) -> tzinfo:
    try:
        return load_zone(settings)
    except ConfigError:  # the page says so where the jobs would be
        return UTC
