"""Who did what on the pages: lines of ``logs/monitor_audit.log``."""

from recsys.logs import fields, file_logger
from recsys.schedule import load_zone
from recsys.settings import Settings


def note(settings: Settings, action: str, who: str, **about: object) -> None:
    """Write down that `who` did `action`."""
    path = settings.logs / "monitor_audit.log"
    file_logger("monitor", path, load_zone(settings)).info("%s%s", action, fields(by=who, **about))
