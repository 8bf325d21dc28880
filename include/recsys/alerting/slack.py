"""The Slack channel: a message of blocks to an incoming webhook."""

import logging
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from datetime import datetime
from typing import Any, Final

from recsys.alerting.config import SlackConfig
from recsys.alerting.message import DEADLINE_SECONDS, WAIT_SECONDS, Alert, DeliveryError, Texts, cut

# Slack refuses a whole message in which one part is longer.
_LONGEST_HEADER: Final = 150
_LONGEST_TEXT: Final = 3000
_LONGEST_FIELD: Final = 2000
_MOST_FIELDS: Final = 10
_LONGEST_URL: Final = 3000
_ICONS: Final = {"info": "ℹ️", "warning": "⚠️", "critical": "🚨"}

# The client logs URLs, and the URL of a webhook is its password: nobody listens here.
_silent = logging.Logger("slack webhook", level=logging.CRITICAL + 1)


class SlackSender:
    """Posts alerts to the configured webhook."""

    name = "Slack"

    def __init__(self, config: SlackConfig, texts: Texts) -> None:
        self._config, self._texts = config, texts

    def send(self, alert: Alert, at: datetime) -> str:
        """Deliver `alert`, returning the line for the log, or raise whatever went wrong."""
        assert self._config.webhook_url is not None
        body = compose(alert, at, self._texts)
        if self._config.channel:
            body["channel"] = self._config.channel
        client = _client(self._config.webhook_url.get_secret_value())
        response = _in_time(lambda: client.send_dict(body))
        if response.status_code != 200:
            raise DeliveryError(f"HTTP {response.status_code}: {response.body[:200]}")
        return "Slack notification sent"


def compose(alert: Alert, at: datetime, texts: Texts) -> dict[str, Any]:
    """The webhook's JSON for `alert`: blocks, and a text for notifications; `at` is local."""
    alert, around = texts.worded(alert), texts.around(alert, at)
    icon = "✅" if alert.resolved else _ICONS[alert.severity]
    header = f"{icon} [{around['severity']}] {alert.headline}"
    blocks: list[dict[str, Any]] = [
        {"type": "header", "text": {"type": "plain_text", "text": cut(header, _LONGEST_HEADER)}},
        {"type": "section", "text": _markdown(alert.body, _LONGEST_TEXT)},
    ]
    facts = [
        _markdown(value or "-", _LONGEST_FIELD, f"*{_escaped(label)}*\n")
        for label, value in texts.facts(alert)
    ]
    if facts:
        blocks.append({"type": "section", "fields": facts[:_MOST_FIELDS]})
    if alert.link and len(alert.link) <= _LONGEST_URL:
        text = {"type": "plain_text", "text": around["open_link"]}
        button = {"type": "button", "text": text, "url": alert.link}
        blocks.append({"type": "actions", "elements": [button]})
    footer = _markdown(around["footer"], _LONGEST_TEXT)
    blocks.append({"type": "context", "elements": [footer]})
    return {"text": cut(_escaped(header), _LONGEST_TEXT), "blocks": blocks}


def _client(url: str) -> Any:
    """The provider's webhook client. In a process of Airflow it comes through the provider's hook,
    and the URL is made known to Airflow's own masking. Elsewhere (the service, a shell) importing
    Airflow would take over the logging of the process."""
    options: dict[str, Any] = {"timeout": WAIT_SECONDS, "retry_handlers": [], "logger": _silent}
    if "airflow" not in sys.modules:
        from slack_sdk.webhook import WebhookClient

        return WebhookClient(url, **options)

    from airflow.providers.slack.hooks.slack_webhook import SlackWebhookHook
    from airflow.sdk import Connection
    from airflow.sdk.log import mask_secret

    class ConfiguredHook(SlackWebhookHook):
        """The hook, with the connection of ``alerts_config.yaml``."""

        @classmethod
        def get_connection(cls, conn_id: str) -> Connection:
            return Connection(conn_id=conn_id, conn_type=cls.conn_type, password=url)

    mask_secret(url)
    return ConfiguredHook(slack_webhook_conn_id="recsys_alerts", **options).client


def _in_time(post: Callable[[], Any]) -> Any:
    """What `post` returns or raises; after the deadline it is left to itself, as its socket is out
    of reach."""
    answer: Future[Any] = Future()

    def run() -> None:
        try:
            answer.set_result(post())
        except Exception as error:  # noqa: BLE001 - raised again where it is waited for
            answer.set_exception(error)

    threading.Thread(target=run, name="slack webhook", daemon=True).start()
    if not wait([answer], DEADLINE_SECONDS).done:
        raise DeliveryError(f"the webhook took longer than {DEADLINE_SECONDS:g} s")
    return answer.result()


def _markdown(text: str, longest: int, prefix: str = "") -> dict[str, str]:
    return {"type": "mrkdwn", "text": prefix + cut(_escaped(text), longest - len(prefix))}


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
