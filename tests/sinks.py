"""What alerts are sent to: a mail server and a webhook on loopback, and the alert log."""

import contextlib
import email
import email.policy
import json
import ssl
import threading
from collections.abc import Iterator
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, LoginPassword, Session

from recsys.settings import Settings
from tests.ports import find_free_port

ALERTS = """\
language: {language}
cooldown_minutes: 60
alerts:
  high_latency: {{threshold: 200, severity: warning, channels: [log, email]}}
  critical_latency: {{threshold: 500, severity: critical, channels: [log, email, slack]}}
  high_error_rate: {{threshold: 0.05, severity: critical}}
  high_fallback_rate: {{threshold: 0.3, severity: warning, cooldown_minutes: 5}}
  no_traffic: {{metric: requests, threshold: 1, comparison: below, severity: warning}}
email:
  smtp_server: "${{SMTP_SERVER}}"
  smtp_port: {port}
  sender: alerts@example.com
  password: {password}
  recipients: [team@example.com, boss@example.com]
slack:
  webhook_url: "${{SLACK_WEBHOOK_URL}}"
  channel: "#ml-alerts"
"""


class MailSink:
    """Keeps every mail that it accepts; `refused` recipients are turned away."""

    def __init__(self) -> None:
        self.mails: list[EmailMessage] = []
        self.logins: list[tuple[str, str]] = []
        self.encrypted: list[bool] = []
        self.refused: set[str] = set()
        self.port = 0

    async def handle_RCPT(self, server, session, envelope, address, options):  # noqa: N802
        if address in self.refused:
            return "550 no such user"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session: Session, envelope):  # noqa: N802
        message = email.message_from_bytes(envelope.content, policy=email.policy.default)
        assert isinstance(message, EmailMessage)
        self.mails.append(message)
        self.encrypted.append(session.ssl is not None)
        return "250 OK"

    def authenticate(self, server, session, envelope, mechanism, data: LoginPassword):
        self.logins.append((data.login.decode(), data.password.decode()))
        return AuthResult(success=True)


@contextlib.contextmanager
def mail_sink(*, tls: ssl.SSLContext | None = None, auth: bool = False) -> Iterator[MailSink]:
    sink = MailSink()
    sink.port = find_free_port()
    options: dict[str, Any] = {}
    if auth:
        options = {"authenticator": sink.authenticate, "auth_require_tls": tls is not None}
    controller = Controller(sink, hostname="127.0.0.1", port=sink.port, tls_context=tls, **options)
    controller.start()
    try:
        yield sink
    finally:
        controller.stop()


class WebhookSink:
    """Keeps every message posted to it; answers with `status`."""

    def __init__(self) -> None:
        self.posts: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.status = 200
        self.url = ""


@contextlib.contextmanager
def webhook_sink() -> Iterator[WebhookSink]:
    sink = WebhookSink()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            sink.posts.append(json.loads(body))
            sink.paths.append(self.path)
            answer = b"ok" if sink.status == 200 else b"server_error"
            self.send_response(sink.status)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    sink.url = f"http://127.0.0.1:{server.server_port}/services/T000/B000/tokenofthewebhook"
    try:
        yield sink
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def alerts_config(port: int, language: str = "en", password: str = "null") -> str:
    """A configuration whose mails go to `port`, with rules of all kinds."""
    return ALERTS.format(port=port, language=language, password=password)


def write_alerts_config(settings: Settings, text: str) -> Path:
    path = settings.home / "config" / "alerts_config.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def log_lines(settings: Settings) -> list[str]:
    """The alert log without the times."""
    path = settings.logs / "service" / "alerts.log"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [line.partition(" | ")[2] for line in lines]
