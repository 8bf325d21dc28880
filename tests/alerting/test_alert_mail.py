import base64
import contextlib
import quopri
import random
import re
import socket
import ssl
import subprocess
import threading
import time
from datetime import UTC, datetime

import pytest

from recsys.alerting import Alert, AlertManager, Severity
from recsys.alerting.mail import compose
from recsys.alerting.message import Texts
from tests.sinks import log_lines, mail_sink


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj",
         "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "key.pem",
         "-out", "cert.pem"],
        cwd=folder, check=True, capture_output=True,
    )  # fmt: skip
    return folder / "cert.pem", folder / "key.pem"


@pytest.fixture
def server_tls(certificate):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*certificate)
    return context


def test_a_mail_has_text_html_and_a_link(manager, mails):
    manager.send_alert(
        "data_late",
        "Dữ liệu <trễ>",
        context={"job": "data_refresh", "url": "http://airflow/dags/x?a=1&b=2"},
    )
    (mail,) = mails.mails
    assert mail["Subject"] == "[WARNING] Alert: data_late"
    assert mail["From"] == "alerts@example.com"
    assert mail["To"] == "team@example.com, boss@example.com"
    assert mail["Date"].endswith("+0700")
    text = mail.get_body(("plain",)).get_content()
    html = mail.get_body(("html",)).get_content()
    assert "Dữ liệu <trễ>" in text
    assert "Pipeline: data_refresh" in text
    assert "http://airflow/dags/x?a=1&b=2" in text
    assert "2025-01-15 15:35:00 +07" in text
    assert "Dữ liệu &lt;trễ&gt;" in html
    assert 'href="http://airflow/dags/x?a=1&amp;b=2"' in html


def test_details_of_several_parts_are_rows_of_their_own(manager, mails):
    left = {"kho": {"HN": 3, "HCM": None}, "brands": ["Cocoon", "Bioderma"]}
    manager.send_alert("stock_low", "look", context={"left": left})
    text = mails.mails[0].get_body(("plain",)).get_content()
    assert "left.kho.HN: 3" in text
    assert "left.brands: Cocoon, Bioderma" in text
    assert "{" not in text


def test_mails_can_be_vietnamese(settings, configure, mails, clock):
    configure(language="vi")
    AlertManager(settings, clock=clock).check_alert_conditions({"avg_latency_ms": 215.3})
    assert mails.mails[0]["Subject"] == "[CẢNH BÁO] Cảnh báo: high_latency"
    text = mails.mails[0].get_body(("plain",)).get_content()
    assert "avg_latency_ms = 215.3, vượt ngưỡng 200." in text


def test_a_name_of_several_lines_cannot_add_headers(manager, mails):
    manager.send_alert("x\r\nBcc: thief@example.com", "look")
    assert mails.mails[0]["Bcc"] is None
    assert "x Bcc: thief@example.com" in mails.mails[0]["Subject"]


def test_the_sender_can_have_a_name(settings, configure, mails):
    configure()
    path = settings.home / "config" / "alerts_config.yaml"
    text = path.read_text().replace("alerts@example.com", "Cảnh báo <alerts@example.com>")
    path.write_text(text)
    assert AlertManager(settings).send_alert("a", "look")["email"] == "sent"
    assert mails.mails[0]["From"].addresses[0].addr_spec == "alerts@example.com"


def test_starttls_is_used_and_the_password_travels_inside(
    settings, configure, certificate, server_tls, monkeypatch
):
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    with mail_sink(tls=server_tls, auth=True) as sink:
        configure(port=sink.port, password="app-password")
        assert AlertManager(settings).send_alert("a", "look")["email"] == "sent"
    assert sink.encrypted == [True]
    assert sink.logins == [("alerts@example.com", "app-password")]


def test_a_server_with_an_unknown_certificate_gets_nothing(settings, configure, server_tls):
    with mail_sink(tls=server_tls, auth=True) as sink:
        configure(port=sink.port, password="app-password")
        assert AlertManager(settings).send_alert("a", "look")["email"] == "failed"
    assert (sink.mails, sink.logins) == ([], [])
    assert "CERTIFICATE_VERIFY_FAILED" in log_lines(settings)[-1]


def test_a_password_is_not_sent_unencrypted_to_another_machine(
    settings, configure, mails, monkeypatch
):
    monkeypatch.setattr("recsys.alerting.mail._is_this_machine", lambda server: False)
    configure(password="app-password")
    assert AlertManager(settings).send_alert("a", "look")["email"] == "failed"
    assert mails.mails == []
    assert "offers no STARTTLS; the password is not sent" in log_lines(settings)[-1]


def test_a_refused_recipient_does_not_cost_the_others_their_mail(manager, mails, settings):
    mails.refused = {"boss@example.com"}
    assert manager.send_alert("a", "look")["email"] == "sent"
    assert log_lines(settings)[-1] == (
        "INFO | alerting | Email sent to team@example.com;"
        " refused for boss@example.com (550 no such user)"
    )


def test_a_server_that_does_not_answer_costs_no_more_than_the_timeout(
    settings, configure, monkeypatch
):
    monkeypatch.setattr("recsys.alerting.mail.WAIT_SECONDS", 2.0)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        configure(port=mute.getsockname()[1])
        begin = time.monotonic()
        assert AlertManager(settings).send_alert("a", "look")["email"] == "failed"
        assert time.monotonic() - begin < 4
    assert "timed out" in log_lines(settings)[-1]


class Scripted:
    """A mail server that says what it is told to; keeps the commands that it was sent."""

    def __init__(self, *, drip: float | None = None, **answers: bytes) -> None:
        self.answers = {"EHLO": b"250 x\r\n", "MAIL": b"250 ok\r\n", "RCPT": b"250 ok\r\n",
                        "DATA": b"354 go on\r\n", "QUIT": b"221 bye\r\n"} | answers  # fmt: skip
        self.mails = 0
        self.commands: list[bytes] = []
        self._drip = drip
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            connection, _ = self._socket.accept()
            with contextlib.suppress(OSError), connection:
                self._converse(connection)

    def _converse(self, connection: socket.socket) -> None:
        while self._drip is not None:
            connection.sendall(b"2")
            time.sleep(self._drip)
        stream = connection.makefile("rb")
        connection.sendall(b"220 hello\r\n")
        for line in stream:
            self.commands.append(line)
            answer = self.answers[line[:4].decode().upper()]
            if not answer:
                return
            connection.sendall(answer)
            if answer.startswith(b"354"):
                while next(stream) != b".\r\n":
                    pass
                self.mails += 1
                connection.sendall(b"250 accepted\r\n")


@pytest.mark.parametrize("farewell", [b"", b"421 too busy for goodbyes\r\n", b"\xff\xfe"])
def test_an_accepted_mail_is_sent_however_the_farewell_goes(
    settings, configure, monkeypatch, farewell
):
    monkeypatch.setattr("recsys.alerting.mail.WAIT_SECONDS", 1.0)
    server = Scripted(QUIT=farewell)
    configure(port=server.port)
    manager = AlertManager(settings)
    assert manager.send_alert("a", "look")["email"] == "sent"
    assert manager.retry_undelivered() == 0
    assert server.mails == 1


def test_a_server_that_sends_byte_after_byte_is_left_in_time(settings, configure, monkeypatch):
    monkeypatch.setattr("recsys.alerting.mail.DEADLINE_SECONDS", 1.5)
    configure(port=Scripted(drip=0.1).port)
    begin = time.monotonic()
    assert AlertManager(settings).send_alert("a", "look")["email"] == "failed"
    assert time.monotonic() - begin < 6
    assert "127.0.0.1 took longer than 1.5 s" in log_lines(settings)[-1]


def test_a_password_beyond_ascii_travels_in_utf_8(settings, configure):
    server = Scripted(EHLO=b"250-x\r\n250 AUTH LOGIN PLAIN\r\n", AUTH=b"235 ok\r\n")
    configure(port=server.port, password="mật-khẩu-đẹp-2025")
    assert AlertManager(settings).send_alert("a", "look")["email"] == "sent"
    (line,) = [line for line in server.commands if line.startswith(b"AUTH")]
    assert base64.b64decode(line.split()[-1]).decode() == (
        "\0alerts@example.com\0mật-khẩu-đẹp-2025"
    )


def test_a_server_that_cannot_take_such_a_password_is_a_sentence(settings, configure):
    server = Scripted(EHLO=b"250-x\r\n250 AUTH LOGIN\r\n")
    configure(port=server.port, password="mật-khẩu-đẹp-2025")
    assert AlertManager(settings).send_alert("a", "look")["email"] == "failed"
    assert "only AUTH PLAIN can carry" in log_lines(settings)[-1]
    assert "mật" not in "".join(log_lines(settings))


def read_back(header: str) -> str:
    """What a header says by the rules of RFC 2047: blanks between two words do not count."""

    def word(found: re.Match[str]) -> str:
        if found[1] == "b":
            return base64.b64decode(found[2]).decode()
        return quopri.decodestring(found[2].replace("_", " ")).decode()

    joined = re.sub(r"(\?=) (=\?)", r"\1\2", header)
    return re.sub(r"=\?utf-8\?([bq])\?([^?]*)\?=", word, joined)


@pytest.mark.parametrize("language", ["vi", "en"])
def test_what_arrives_in_a_header_is_what_was_written(language):
    texts, rng = Texts(language, UTC), random.Random(0)
    said = ("failed", "deadline", "silent", "unhealthy", "alert_resolved")
    blanks = {"job": "model_training", "component": "service", "name": "high_fallback_rate"}
    words = " ".join(texts.say(name, **blanks) for name in said).split()
    headlines = [" ".join(rng.choices(words, k=rng.randint(2, 40))) for _ in range(400)]
    sender = "Giám sát hệ thống gợi ý mỹ phẩm của cửa hàng ở thành phố <alerts@example.com>"
    for headline in ("Pipeline model_training thất bại", *headlines):
        alert = Alert("a", "m", Severity.CRITICAL, headline=headline)
        mail = compose(alert, datetime.now(UTC), texts)
        mail["From"], mail["To"] = sender, f"team@example.com, {sender}"
        head = mail.as_bytes(policy=mail.policy.clone(linesep="\r\n")).split(b"\r\n\r\n")[0]
        assert b"?==?" not in head
        unfolded = head.decode().replace("\r\n ", " ").split("\r\n")
        lines = dict(line.split(": ", 1) for line in unfolded)
        severity = texts.say(Severity.CRITICAL)
        assert read_back(lines["Subject"]) == f"[{severity}] {headline}"
        assert read_back(lines["From"]) == sender
        assert read_back(lines["To"]) == f"team@example.com, {sender}"


def test_an_error_text_with_the_password_is_masked(settings, configure):
    """A server may repeat what it was sent."""

    def answer(connection):
        with connection, connection.makefile("rwb", buffering=0) as stream:
            stream.write(b"220 hello\r\n")
            stream.readline()
            stream.write(b"250-x\r\n250 AUTH PLAIN\r\n")
            stream.write(b"535 bad credentials: " + stream.readline())

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=lambda: answer(server.accept()[0]), daemon=True).start()
        configure(port=server.getsockname()[1], password="app-password")
        AlertManager(settings).send_alert("a", "look")
    line = log_lines(settings)[-1]
    assert "Email failed: SMTPAuthenticationError" in line
    assert "AGFsZXJ0c0BleGFtcGxlLmNvbQBhcHAtcGFzc3dvcmQ=" not in line
    assert "***" in line
