"""A real S3 API on loopback for the tests: moto's server, one request at a time.

Run by the interpreter of ``.venv-s3`` (moto's packages and Airflow's exclude each other). Moto
checks ``If-Match`` and then writes without a lock between; S3 does both in one step, so requests
take turns here. With ``careless`` it ignores conditions, as older services do. Moto checks no
signatures either: here that is done for requests that our own code signs, and no client.
"""

import hashlib
import io
import os
import re
import sys
import threading
from collections.abc import Iterable
from typing import Any

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

_CONDITIONS = ("HTTP_IF_MATCH", "HTTP_IF_NONE_MATCH")
_turn = threading.Lock()
_moto = DomainDispatcherApplication(create_backend_app)


def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    if "careless" in sys.argv:
        environ = {key: value for key, value in environ.items() if key not in _CONDITIONS}
    is_ours = environ.get("HTTP_USER_AGENT", "").startswith("python-requests")
    if is_ours and "HTTP_AUTHORIZATION" in environ:
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        environ["wsgi.input"] = io.BytesIO(body)
        if not _is_signed(environ, body):
            start_response("403 Forbidden", [("Content-Type", "application/xml")])
            return [b"<Error><Code>SignatureDoesNotMatch</Code></Error>"]
    with _turn:
        return list(_moto(environ, start_response))


def _is_signed(environ: dict[str, Any], body: bytes) -> bool:
    """Whether the signature is the one that Amazon's own client makes with the server's keys."""
    given = dict(re.findall(r"(\w+)=([^, ]+)", environ["HTTP_AUTHORIZATION"]))
    headers = {
        name: environ["HTTP_" + name.upper().replace("-", "_")]
        for name in given["SignedHeaders"].split(";")
    }
    url = f"http://{environ['HTTP_HOST']}{environ['RAW_URI']}"
    request = AWSRequest(environ["REQUEST_METHOD"], url, headers, body)
    request.context["timestamp"] = headers["x-amz-date"]
    signer = S3SigV4Auth(
        Credentials(os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"]),
        *("s3", given["Credential"].split("/")[2]),
    )
    text = signer.string_to_sign(request, signer.canonical_request(request))
    sound = headers["x-amz-content-sha256"] == hashlib.sha256(body).hexdigest()
    return sound and signer.signature(text, request) == given["Signature"]


if __name__ == "__main__":
    server = make_server(sys.argv[1], int(sys.argv[2]), application, threaded=True)
    print("ready", flush=True)
    server.serve_forever()
