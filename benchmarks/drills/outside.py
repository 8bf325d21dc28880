"""Mail, Slack and S3 servers that refuse, hang, drip, lie and hang up, with the real deadlines.

    python -m benchmarks.drills.outside

Survived: the caller is back in time and says what went wrong, no password is in an answer or a
log, an alert that nobody took is sent once when the server is well again, and nothing of a bucket
that lies gets into the state root.
"""

import contextlib
import itertools
import os
import shutil
import socket
import struct
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from benchmarks.drills._table import Attacks
from recsys.alerting import AlertManager
from recsys.alerting.mail import DEADLINE_SECONDS
from recsys.errors import InputError
from recsys.settings import Settings
from recsys.storage import StorageError, Store, open_store
from tests.sinks import alerts_config, log_lines, mail_sink, webhook_sink, write_alerts_config

PASSWORD, KEY_SECRET, WEBHOOK = "correct-horse-battery", "wJalrXUtnFEMI", "T0/B0/webhook-secret"
STORE = "url: s3://shop/production\nendpoint: http://127.0.0.1:{port}\nretry_seconds: 2\n"
STORE_SECONDS = 20.0
AT_ONCE = 40

Talk = Callable[[socket.socket], None]


# What a server may do in place of an answer.
def closes(connection: socket.socket) -> None:
    connection.close()


def resets(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def hangs(connection: socket.socket) -> None:
    connection.settimeout(600)
    while connection.recv(65_536):
        pass


def drips(connection: socket.socket, letters: bytes = b"2") -> None:
    for letter in itertools.cycle(letters):
        connection.sendall(bytes([letter]))
        time.sleep(0.5)


def says(connection: socket.socket, content: bytes, then: Talk = hangs) -> None:
    connection.sendall(content)
    then(connection)


BEHAVIOURS: dict[str, Talk] = {
    "closes": closes,
    "resets": resets,
    "hangs": hangs,
    "drips": drips,
    "says junk": partial(says, content=bytes(range(256)) * 8 + b"\r\n"),
    "says a line without end": partial(says, content=b"2" * 1_000_000),
    "says lines without end": partial(says, content=b"250-x\r\n" * 20_000),
    "is busy": partial(says, content=b"451 try again later\r\n"),
    "refuses": partial(says, content=b"554 you are not welcome\r\n"),
}


@contextlib.contextmanager
def server(talk: Talk) -> Iterator[int]:
    """A port where `talk` is what happens to each connection."""

    def listen() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listening.accept()
                threading.Thread(target=converse, args=(connection,), daemon=True).start()

    def converse(connection: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError), connection:
            talk(connection)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=listen, daemon=True).start()
        yield listening.getsockname()[1]


# Mail
STAGES = ("connect", "EHLO", "MAIL", "RCPT", "DATA", "the end", "QUIT")
_USUAL = {"EHLO": b"250 x\r\n", "DATA": b"354 go on\r\n"}


def speak_smtp(connection: socket.socket, stage: str, talk: Talk) -> None:
    """As a mail server does, until `stage` is reached."""
    if stage == "connect":
        talk(connection)
        return
    stream = connection.makefile("rb")
    connection.sendall(b"220 hello\r\n")
    for line in stream:
        command = line[:4].decode("ascii", "replace").upper()
        if command == stage:
            talk(connection)
            return
        connection.sendall(_USUAL.get(command, b"250 ok\r\n"))
        if command == "DATA":
            while next(stream) != b".\r\n":
                pass
            if stage == "the end":
                talk(connection)
                return
            connection.sendall(b"250 accepted\r\n")


def attack_mail(attacks: Attacks, root: Path, wells: tuple[int, list]) -> Callable[[tuple], None]:
    port, mails = wells

    def one(chosen: tuple[str, str]) -> None:
        stage, name = chosen
        kind = f"a mail server that does something else at {stage}"
        with (
            attacks.attack(kind, name),
            server(partial(speak_smtp, stage=stage, talk=BEHAVIOURS[name])) as bad,
        ):
            settings = Settings(root / f"mail-{stage}-{name}".replace(" ", "-"))
            write_alerts_config(settings, alerts_config(bad, password=PASSWORD))
            alert = f"{stage} {name}"
            status = told_in_time(settings, alert, "warning")["email"]
            # Once a mail is accepted, how the server takes leave changes nothing.
            assert status == ("sent" if stage == "QUIT" else "failed"), status
            write_alerts_config(settings, alerts_config(port, password=PASSWORD))
            again = AlertManager(settings).retry_undelivered()
            assert again == (0 if status == "sent" else 1), again
            copies = sum(mail["Subject"].endswith(f": {alert}") for mail in list(mails))
            assert copies == again, f"{copies} copies"
            assert_no_secret("\n".join(log_lines(settings)))

    return one


def told_in_time(settings: Settings, alert: str, severity: str) -> dict[str, str]:
    """What became of an alert; it is in the log, and the caller was not kept for long."""
    began = time.monotonic()
    sent = AlertManager(settings).send_alert(alert, "something happened", severity)
    seconds = time.monotonic() - began
    assert seconds < 2 * DEADLINE_SECONDS + 8, f"it took {seconds:.0f} s"
    assert sent["log"] == "sent"
    assert any(alert in line for line in log_lines(settings))
    return sent


def assert_no_secret(text: str) -> None:
    for secret in (PASSWORD, KEY_SECRET, WEBHOOK, "webhook-secret", "Traceback"):
        assert secret not in text, f"{secret} is told: {text[:500]}"


# HTTP
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"


def answer(status: str, body: bytes = b"", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


HTTP: dict[str, Talk] = {
    "closes": closes,
    "resets": resets,
    "hangs": hangs,
    "drips": partial(drips, letters=_HEAD),
    "drips a body": partial(says, content=_HEAD + b"Content-Length: 999\r\n\r\n", then=drips),
    "says junk": partial(says, content=bytes(range(256)) * 20, then=closes),
    "speaks TLS": partial(says, content=bytes.fromhex("1603010005020000015a"), then=hangs),
    "speaks HTTP/0.9": partial(says, content=b"hello\r\n", then=closes),
    "says a header without end": partial(says, content=_HEAD + b"X: " + b"a" * 1_000_000),
    "says headers without end": partial(says, content=_HEAD + b"X: a\r\n" * 20_000),
    "says 1xx without end": partial(says, content=b"HTTP/1.1 100 Continue\r\n\r\n" * 20_000),
    "says less than it promised": partial(
        says, content=_HEAD + b"Content-Length: 999\r\n\r\nok", then=closes
    ),
    "promises and hangs": partial(says, content=_HEAD + b"Content-Length: 999\r\n\r\nok"),
    "says chunks of no size": partial(
        says, content=_HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", then=closes
    ),
    "says chunks without end": partial(
        says, content=_HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"
    ),
    "says a length of letters": partial(
        says, content=_HEAD + b"Content-Length: many\r\n\r\n", then=closes
    ),
    "says gzip and sends none": partial(
        says, content=answer("200 OK", b"x" * 20, "Content-Encoding: gzip"), then=closes
    ),
    "says status 999": partial(says, content=answer("999 What"), then=closes),
    "says 400": partial(says, content=answer("400 Bad Request", b"invalid_payload"), then=closes),
    "says 403": partial(says, content=answer("403 Forbidden", b"no_service"), then=closes),
    "says 404": partial(says, content=answer("404 Not Found", b"<html>"), then=closes),
    "says 409": partial(says, content=answer("409 Conflict"), then=closes),
    "says 412": partial(says, content=answer("412 Precondition Failed"), then=closes),
    "says 429": partial(
        says, content=answer("429 Slow", b"", "Retry-After: 999999"), then=closes
    ),
    "says 500": partial(says, content=answer("500 Oops", b"<xml"), then=closes),
    "says 503": partial(says, content=answer("503 Slow Down", b"SlowDown"), then=closes),
    "leads to itself": partial(
        says, content=answer("301 Moved", b"", "Location: /"), then=closes
    ),
    "leads to a file": partial(
        says, content=answer("302 Found", b"", "Location: file:///etc/passwd"), then=closes
    ),
}  # fmt: skip
TAKEN = {"says gzip and sends none", "says a length of letters"}
LIES: dict[str, Talk] = {
    "has nothing": partial(says, content=answer("200 OK", b"", 'ETag: "x"'), then=closes),
    "has something else": partial(says, content=answer("200 OK", b"[]", 'ETag: "x"'), then=closes),
    "has HTML": partial(says, content=answer("200 OK", b"<html>", 'ETag: "x"'), then=closes),
    "has nested JSON": partial(
        says, content=answer("200 OK", b"[" * 100_000, 'ETag: "x"'), then=closes
    ),
    "has a list that goes on": partial(
        says,
        content=answer(
            "200 OK",
            b"<ListBucketResult><IsTruncated>true</IsTruncated><NextContinuationToken>x"
            b"</NextContinuationToken></ListBucketResult>",
        ),
        then=closes,
    ),
    "has names that lead out": partial(
        says,
        content=answer(
            "200 OK",
            b"<ListBucketResult><IsTruncated>false</IsTruncated><Contents><Key>../../../etc/x</Key>"
            b"<LastModified>2025-01-01T00:00:00Z</LastModified><Size>1</Size></Contents>"
            b"</ListBucketResult>",
        ),
        then=closes,
    ),
}  # fmt: skip


def after_the_request(connection: socket.socket, talk: Talk) -> None:
    """A request is read to the end of its headers, and what has come of its body."""
    content = b""
    while b"\r\n\r\n" not in content:
        part = connection.recv(65_536)
        if not part:
            return
        content += part
    talk(connection)


def attack_slack(attacks: Attacks, root: Path, well: str) -> Callable[[str], None]:
    def one(name: str) -> None:
        kind = "a Slack that refuses, hangs, drips or lies"
        with attacks.attack(kind, name), server(partial(after_the_request, talk=HTTP[name])) as bad:
            settings = Settings(root / f"slack-{name}".replace(" ", "-").replace("/", ""))
            write_alerts_config(settings, webhook(f"http://127.0.0.1:{bad}/services/{WEBHOOK}"))
            status = told_in_time(settings, name, "critical")["slack"]
            # Two answer 200 and say the rest wrong: what Slack said with 200 it has taken.
            assert status == ("sent" if name in TAKEN else "failed"), status
            write_alerts_config(settings, webhook(well))
            assert AlertManager(settings).retry_undelivered() == (status == "failed")
            assert_no_secret("\n".join(log_lines(settings)))

    return one


def webhook(url: str) -> str:
    text = alerts_config(9).replace("${SLACK_WEBHOOK_URL}", url)
    return text.replace("email:\n", "email:\n  enabled: false\n")


# S3
KEY = "data/versions/v1"


def publish(store: Store, settings: Settings) -> None:
    folder = settings.home / KEY
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text("{}")
    store.publish(KEY)


def point(store: Store, settings: Settings) -> None:
    store.point("data/processed", KEY, lambda current: True)


def change(store: Store, settings: Settings) -> None:
    store.change("artifacts/cf/registry.json", lambda content: (content or b"") + b"x")


OPERATIONS: dict[str, Callable[[Store, Settings], object]] = {
    "fetch": lambda store, settings: store.fetch(KEY),
    "publish": publish,
    "point": point,
    "read": lambda store, settings: store.read("artifacts/cf/registry.json"),
    "change": change,
}


def attack_store(attacks: Attacks, root: Path) -> Callable[[tuple], None]:
    def one(chosen: tuple[str, str]) -> None:
        operation, name = chosen
        talk = (HTTP | LIES)[name]
        with (
            attacks.attack(f"an S3 service that refuses, hangs, drips or lies: {operation}", name),
            server(partial(after_the_request, talk=talk)) as bad,
        ):
            home = root / f"{operation}-{name}".replace(" ", "-").replace("/", "")
            settings = Settings(home)
            (home / "config").mkdir(parents=True)
            (home / "config" / "storage.yaml").write_text(STORE.format(port=bad))
            began = time.monotonic()
            said = KEY
            try:
                OPERATIONS[operation](open_store(settings), settings)
            except (StorageError, InputError, FileNotFoundError, FileExistsError) as error:
                said = str(error)
            assert_no_secret(said)
            assert "s3://shop/production" in said or KEY in said, said
            seconds = time.monotonic() - began
            assert seconds < STORE_SECONDS, f"it took {seconds:.0f} s"
            assert not (home / "data" / "processed").exists()
            if operation != "publish":
                assert not (home / KEY).exists()

    return one


def main() -> int:
    """Print a row of docs/reliability.md for each kind; 1 if an attack got through."""
    attacks = Attacks("outside")
    root = Path(tempfile.mkdtemp(prefix="recsys-drill-"))
    os.environ |= {
        "SMTP_SERVER": "127.0.0.1",
        "AWS_ACCESS_KEY_ID": "shop",
        "AWS_SECRET_ACCESS_KEY": KEY_SECRET,
    }
    try:
        with mail_sink() as sink, webhook_sink() as slack, ThreadPoolExecutor(AT_ONCE) as pool:
            mail = attack_mail(attacks, root, (sink.port, sink.mails))
            store = attack_store(attacks, root)
            waiting = [
                pool.map(mail, itertools.product(STAGES, BEHAVIOURS)),
                pool.map(attack_slack(attacks, root, slack.url), HTTP),
                pool.map(store, itertools.product(OPERATIONS, HTTP | LIES)),
            ]
            for ends in waiting:
                list(ends)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    return attacks.end()


if __name__ == "__main__":
    sys.exit(main())
