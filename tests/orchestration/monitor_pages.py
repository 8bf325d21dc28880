"""Pages of the monitor without its server."""

from typing import Any

from recsys.orchestration.monitor.rendering import Renderer
from recsys.orchestration.monitor.visit import Visit
from recsys.settings import Settings


def render(settings: Settings, template: str, language: str = "vi", **values: Any) -> str:
    """The page that a template makes of `values`, mounted at ``/recsys``."""
    visit = Visit("/recsys", "/recsys/", language)
    return Renderer(settings).page(template, visit, "today", **values)
