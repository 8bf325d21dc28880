"""The monitor's pages as HTML."""

import json
import re
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from markupsafe import Markup

from recsys.config import ConfigError
from recsys.orchestration.monitor.assets import assets
from recsys.orchestration.monitor.language import LANGUAGES, Language
from recsys.orchestration.monitor.visit import Visit
from recsys.pages import templates
from recsys.publishing import storable
from recsys.schedule import load_zone
from recsys.settings import Settings

SECTIONS: Final = (
    "today",
    "time",
    "models",
    "before",
    "outcomes",
    "experiments",
    "look",
    "reports",
    "rules",
    "customers",
    "alerts",
)
"""The pages of the navigation, in its order; ``nav.NAME`` is what it calls each."""

_MODEL_ID: Final = re.compile(r"([a-z_]+_\d{8}_\d{6}\w*)")


class Renderer:
    """Fills the templates, in the language of a visit and the time zone of the schedule."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._environment = templates(Path(__file__).parent / "templates")
        self._environment.filters |= {
            "segment": lambda text: quote(str(text), safe=""),
            "pretty": lambda value: json.dumps(value, ensure_ascii=False, indent=2, default=str),
            "data": _data,
            "with_ids": _with_ids,
        }
        self._environment.globals |= {
            "sections": SECTIONS,
            "languages": LANGUAGES,
            "asset": {name: f"{name}?v={one.version}" for name, one in assets().items()},
        }

    def language(self, visit: Visit) -> Language:
        """The language of a visit, with the zone of the pages."""
        return Language(visit.language, _zone(self._settings))

    def page(self, template: str, visit: Visit, here: str | None, **values: Any) -> str:
        """The template with `values`, for a visit; `here` is its page in the navigation."""
        language = self.language(visit)
        now = datetime.now(UTC)
        common: dict[str, Any] = {
            "root": visit.root,
            "airflow": visit.airflow,
            "back": visit.path,
            "here": here,
            "now": now,
            "language": language,
            "t": language.say,
            "zone": language.zone_name(now),
        }
        return storable(self._environment.get_template(template).render(common | values))


def _data(value: Any) -> str:
    """JSON for a page's scripts, which stands in an attribute."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def _with_ids(text: str) -> Markup:
    """A sentence whose ids of models are names, which no language translates."""
    shown = Markup("<code>{}</code>")
    parts = _MODEL_ID.split(text)  # every second one is an id
    return Markup().join(shown.format(one) if n % 2 else one for n, one in enumerate(parts))


def _zone(settings: Settings) -> tzinfo:
    try:
        return load_zone(settings)
    except ConfigError:  # the page says so where the jobs would be
        return UTC
