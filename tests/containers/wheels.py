"""The CPU build of torch, as this machine's own pip finds it, for builds to fetch from here."""

import contextlib
import http.server
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial

from recsys.settings import REPOSITORY
from tests.containers.engine import GATEWAY, ROOT

PORT = 8099
"""The same in every run: another address would be another build."""


@contextlib.contextmanager
def torch_index() -> Iterator[str]:
    """The address of a package index with torch alone, that a build reaches."""
    pin = re.search(r"^torch==\S+$", (REPOSITORY / "requirements-torch.txt").read_text(), re.M)
    assert pin is not None
    folder = ROOT / "index"
    if not any(folder.glob(f"torch/{pin[0].replace('==', '-')}*.whl")):
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", pin[0]]
        subprocess.run([*command, "--dest", str(folder / "torch")], check=True)
    handler = partial(_Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer((GATEWAY, PORT), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://{GATEWAY}:{PORT}/"
        finally:
            server.shutdown()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None: ...
