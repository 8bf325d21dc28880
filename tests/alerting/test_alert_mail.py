import socket
import ssl
import subprocess
import threading
import time

import pytest

from recsys.alerting import AlertManager
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
