"""A real S3 API on loopback for the tests: moto's server, one request at a time.

Run by the interpreter of ``.venv-s3`` (moto's packages and Airflow's exclude each other). Moto
checks ``If-Match`` and then writes without a lock between; S3 does both in one step, so requests
take turns here. With ``careless`` it ignores conditions, as older services do.
"""

import sys
import threading
from collections.abc import Iterable
from typing import Any

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

_CONDITIONS = ("HTTP_IF_MATCH", "HTTP_IF_NONE_MATCH")
_turn = threading.Lock()
_moto = DomainDispatcherApplication(create_backend_app)


def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    if "careless" in sys.argv:
        environ = {key: value for key, value in environ.items() if key not in _CONDITIONS}
    with _turn:
        return list(_moto(environ, start_response))


if __name__ == "__main__":
    server = make_server("127.0.0.1", int(sys.argv[1]), application, threaded=True)
    print("ready", flush=True)
    server.serve_forever()
