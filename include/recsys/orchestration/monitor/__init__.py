"""What the on-call sees in Airflow's UI: health, jobs, models, reports, alerts on one page.

Importing this package costs nothing: every Airflow process loads the plugin that does."""

import asyncio
from typing import Any, Final

PREFIX: Final = "/recsys"
"""Where the API server mounts the monitor."""


class BuiltOnFirstRequest:
    """The monitor as an ASGI application that is imported when somebody asks for it."""

    def __init__(self) -> None:
        self._app: Any = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request. Building takes a second, in which others are answered."""
        if self._app is None:
            self._app = await asyncio.to_thread(_build)
        await self._app(scope, receive, send)


def _build() -> Any:
    from recsys.orchestration.monitor.app import create_app
    from recsys.settings import load_settings

    return create_app(load_settings())
