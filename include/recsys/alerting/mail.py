"""The mail channel: plain text and HTML in one message, over SMTP."""

import ipaddress
import smtplib
import ssl
from collections.abc import Mapping
from datetime import datetime
from email.message import EmailMessage
from email.utils import format_datetime, make_msgid, parseaddr
from pathlib import Path
from typing import Final

import jinja2

from recsys.alerting.config import EmailConfig
from recsys.alerting.message import Alert, DeliveryError, NotSetUpError, Texts

TLS_PORT: Final = 465
WAIT_SECONDS = 10.0
"""Longest wait for the server in one step."""
COLOURS: Final = {"info": "#2563eb", "warning": "#b45309", "critical": "#b91c1c"}
RESOLVED_COLOUR: Final = "#15803d"

_TEMPLATES: Final = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=jinja2.select_autoescape(["html"]),
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


class MailSender:
    """Sends alerts as mails to all recipients at once."""

    name = "Email"

    def __init__(self, config: EmailConfig, unset: tuple[str, ...], texts: Texts) -> None:
        self._config = config
        self._unset = unset
        self._texts = texts

    def send(self, alert: Alert, at: datetime) -> str:
        server, sender = self._ready()
        message = compose(alert, at, self._texts)
        message["From"] = sender
        message["To"] = ", ".join(self._config.recipients)
        message["Message-ID"] = make_msgid("alert", domain=parseaddr(sender)[1].partition("@")[2])
        with self._connection(server) as smtp:
            refused = smtp.send_message(message)
        accepted = [one for one in self._config.recipients if one not in refused]
        line = f"Email sent to {', '.join(accepted)}"
        if refused:
            line += f"; refused for {_reasons(refused)}"
        return line

    def _ready(self) -> tuple[str, str]:
        config = self._config
        if not config.enabled:
            raise NotSetUpError("switched off by email.enabled")
        if self._unset:
            raise NotSetUpError(f"{', '.join(self._unset)} not set")
        if not config.smtp_server or not config.sender or not config.recipients:
            raise NotSetUpError("email.smtp_server, email.sender and email.recipients are needed")
        return config.smtp_server, config.sender

    def _connection(self, server: str) -> smtplib.SMTP:
        config = self._config
        smtp: smtplib.SMTP
        if config.smtp_port == TLS_PORT:
            smtp = smtplib.SMTP_SSL(
                server,
                config.smtp_port,
                timeout=WAIT_SECONDS,
                context=ssl.create_default_context(),
            )
        else:
            smtp = smtplib.SMTP(server, config.smtp_port, timeout=WAIT_SECONDS)
        try:
            self._secure_and_login(smtp, server)
        except BaseException:
            smtp.close()
            raise
        return smtp

    def _secure_and_login(self, smtp: smtplib.SMTP, server: str) -> None:
        smtp.ehlo_or_helo_if_needed()
        encrypted = isinstance(smtp, smtplib.SMTP_SSL)
        if not encrypted and smtp.has_extn("starttls"):
            smtp.starttls(context=ssl.create_default_context())
            smtp.ehlo()
            encrypted = True
        password = self._config.password
        if password is None:
            return
        if not encrypted and not _is_this_machine(server):
            raise DeliveryError(
                f"{server} offers no STARTTLS; the password is not sent unencrypted"
            )
        if smtp.has_extn("auth"):
            smtp.login(self._config.user, password.get_secret_value())


def compose(alert: Alert, at: datetime, texts: Texts) -> EmailMessage:
    """The mail for `alert`, without sender and recipients; `at` is local time."""
    headline = alert.headline or texts.say("alert", name=alert.name)
    severity = texts.severity(alert.severity, resolved=alert.resolved)
    content = {
        "language": texts.language,
        "headline": headline,
        "severity": severity,
        "text": alert.text or alert.message,
        "facts": [(texts.label(name), value) for name, value in alert.facts.items()],
        "link": alert.link,
        "open_link": texts.say("open_link"),
        "footer": texts.say("footer", time=at.strftime("%Y-%m-%d %H:%M:%S %Z")),
        "colour": RESOLVED_COLOUR if alert.resolved else COLOURS[alert.severity],
    }
    message = EmailMessage()
    message["Subject"] = " ".join(f"[{severity}] {headline}".split())
    message["Date"] = format_datetime(at)
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(_TEMPLATES.get_template("mail.txt").render(content))
    message.add_alternative(_TEMPLATES.get_template("mail.html").render(content), subtype="html")
    return message


def _reasons(refused: Mapping[str, tuple[int, bytes]]) -> str:
    return ", ".join(
        f"{recipient} ({code} {reason.decode(errors='replace')})"
        for recipient, (code, reason) in refused.items()
    )


def _is_this_machine(server: str) -> bool:
    try:
        return ipaddress.ip_address(server).is_loopback
    except ValueError:
        return server == "localhost"
