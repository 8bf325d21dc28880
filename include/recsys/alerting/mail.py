"""The mail channel: plain text and HTML in one message, over SMTP."""

import base64
import contextlib
import ipaddress
import smtplib
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from datetime import datetime
from email.header import Header
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import EmailPolicy
from email.utils import format_datetime, formataddr, make_msgid, parseaddr
from pathlib import Path
from typing import Any, Final

from recsys.alerting.config import EmailConfig
from recsys.alerting.message import DEADLINE_SECONDS, WAIT_SECONDS, Alert, DeliveryError, Texts
from recsys.pages import templates

TLS_PORT: Final = 465
_TEMPLATES: Final = templates(Path(__file__).parent / "templates")


class MailSender:
    """Sends alerts as mails to all recipients at once."""

    name = "Email"

    def __init__(self, config: EmailConfig, texts: Texts) -> None:
        self._config, self._texts = config, texts

    def send(self, alert: Alert, at: datetime) -> str:
        """Deliver `alert`, returning the line for the log, or raise whatever went wrong."""
        sender = parseaddr(self._config.sender or "")
        message = compose(alert, at, self._texts)
        message["From"] = formataddr(sender)
        message["To"] = ", ".join(self._config.recipients)
        message["Message-ID"] = make_msgid("alert", domain=sender[1].partition("@")[2])
        with self._connection(self._config.smtp_server or "") as smtp:
            refused = smtp.send_message(message)
            # The mail is accepted: how the farewell goes changes nothing about that.
            with contextlib.suppress(OSError, smtplib.SMTPException):
                smtp.docmd("QUIT")
        accepted = (one for one in self._config.recipients if one not in refused)
        reasons = ", ".join(
            f"{recipient} ({code} {reason.decode(errors='replace')})"
            for recipient, (code, reason) in refused.items()
        )
        return f"Email sent to {', '.join(accepted)}{reasons and f'; refused for {reasons}'}"

    @contextlib.contextmanager
    def _connection(self, server: str) -> Iterator[smtplib.SMTP]:
        """A conversation that may begin with the mail. It is cut when its time is over."""
        port = self._config.smtp_port
        due = time.monotonic() + DEADLINE_SECONDS
        smtp: smtplib.SMTP
        try:
            if port == TLS_PORT:
                context = ssl.create_default_context()
                smtp = _PunctualTls(due, server, port, timeout=WAIT_SECONDS, context=context)
            else:
                smtp = _Punctual(due, server, port, timeout=WAIT_SECONDS)
            with contextlib.closing(smtp):
                self._secure_and_login(smtp, server)
                yield smtp
        except (OSError, smtplib.SMTPException) as error:
            if time.monotonic() < due:
                raise
            raise DeliveryError(f"{server} took longer than {DEADLINE_SECONDS:g} s") from error

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
            no_tls = f"{server} offers no STARTTLS"
            raise DeliveryError(f"{no_tls}; the password is not sent unencrypted")
        if smtp.has_extn("auth"):
            _log_in(smtp, self._config.user, password.get_secret_value())


class _Punctual(smtplib.SMTP):
    """A conversation that is cut at the moment `due` of the monotonic clock: a socket's own timeout
    begins anew with every byte that comes."""

    def __init__(self, due: float, *args: Any, **options: Any) -> None:
        self._due = due
        super().__init__(*args, **options)

    def getreply(self) -> tuple[int, bytes]:
        late = threading.Timer(max(0.0, self._due - time.monotonic()), self._cut)
        late.start()
        try:
            return super().getreply()
        finally:
            late.cancel()

    def _cut(self) -> None:
        # The plain socket's way, also under TLS: a reader in another thread is waiting on it.
        if self.sock is not None:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(self.sock, socket.SHUT_RDWR)


class _PunctualTls(_Punctual, smtplib.SMTP_SSL):
    """The same, with TLS from the start."""


class _Folding(EmailPolicy):
    """Folds a text with accents into encoded words that lose no blank between them. The standard
    policy's words run into each other; some servers refuse such a header."""

    def fold(self, name: str, value: Any) -> str:
        if str(value).isascii() or name not in ("Subject", "From", "To"):
            return super().fold(name, value)
        if name == "Subject":
            text = _encoded(str(value))
        else:
            text = ",\n ".join(_address(one) for one in value.addresses)
        return f"{name}: {text}\n".replace("\n", self.linesep)

    def fold_binary(self, name: str, value: Any) -> bytes:
        return self.fold(name, value).encode("utf-8" if self.utf8 else "ascii", "surrogateescape")


def _encoded(text: str) -> str:
    """`text` as RFC 2047's words, one a line, behind a header's name."""
    return Header(text, "utf-8", header_name="Subject").encode()


def _address(address: Address) -> str:
    if str(address).isascii():
        return str(address)
    return f"{_encoded(address.display_name)}\n <{address.addr_spec}>"


def _log_in(smtp: smtplib.SMTP, user: str, password: str) -> None:
    """Log in; characters beyond ASCII travel in UTF-8, as RFC 4616 says."""
    if f"{user}{password}".isascii():
        smtp.login(user, password)
        return
    if "PLAIN" not in smtp.esmtp_features.get("auth", "").upper().split():
        needed = "which only AUTH PLAIN can carry, and the server does not offer that"
        raise DeliveryError(f"the password has characters beyond ASCII, {needed}")
    login = base64.b64encode(f"\0{user}\0{password}".encode()).decode()
    code, answer = smtp.docmd("AUTH", f"PLAIN {login}")
    if code != 235:
        raise smtplib.SMTPAuthenticationError(code, answer)


def compose(alert: Alert, at: datetime, texts: Texts) -> EmailMessage:
    """The mail for `alert`, without sender and recipients; `at` is local time."""
    alert, around = texts.worded(alert), texts.around(alert, at)
    content = around | {
        "headline": alert.headline,
        "language": texts.language,
        "text": alert.body,
        "facts": texts.facts(alert),
        "link": alert.link,
        "kind": "resolved" if alert.resolved else alert.severity.value,
    }
    message = EmailMessage(_Folding())
    message["Subject"] = " ".join(f"[{around['severity']}] {alert.headline}".split())
    message["Date"] = format_datetime(at)
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(_TEMPLATES.get_template("mail.txt").render(content))
    message.add_alternative(_TEMPLATES.get_template("mail.html").render(content), subtype="html")
    return message


def _is_this_machine(server: str) -> bool:
    try:
        return ipaddress.ip_address(server).is_loopback
    except ValueError:
        return server == "localhost"
