#!/usr/bin/python3
"""The part of Mailpit that the tests use: takes every mail, and lists them as JSON."""

import asyncio
import email
import email.policy
import json
import os
import sys
import urllib.request
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from aiosmtpd.controller import Controller

PORT = 8025
mails: list[dict[str, Any]] = []


class Inbox:
    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
        message = email.message_from_bytes(envelope.content, policy=email.policy.default)
        recipients = [{"Address": one} for one in envelope.rcpt_tos]
        created = datetime.now(UTC).isoformat()
        mail = {"Subject": str(message["Subject"]), "To": recipients, "Created": created}
        mails.insert(0, mail)
        return "250 OK"


class Page(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = json.dumps({"total": len(mails), "messages": mails}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: Any) -> None: ...


def main() -> None:
    if sys.argv[1:] == ["readyz"]:
        urllib.request.urlopen(f"http://127.0.0.1:{PORT}/readyz", timeout=5).close()
        return
    host, _, port = os.environ["MP_SMTP_BIND_ADDR"].partition(":")
    Controller(Inbox(), hostname=host, port=int(port)).start()
    asyncio.new_event_loop()
    ThreadingHTTPServer(("0.0.0.0", PORT), Page).serve_forever()


if __name__ == "__main__":
    main()
