"""Buckets on a real S3 API, and state roots of machines that share one."""

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4
from xml.etree import ElementTree

import obstore
import requests
from obstore.store import from_url

from recsys.settings import REPOSITORY, Settings
from tests.ports import find_free_port

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "shop", "AWS_SECRET_ACCESS_KEY": "not-a-secret"}
_START_SECONDS = 60.0


@contextlib.contextmanager
def s3_server(log: Path, *options: str, host: str = "127.0.0.1") -> Iterator[str]:
    """The server's address; installs it into ``.venv-s3`` if that was not done yet."""
    subprocess.run(["make", "--silent", "s3-server"], cwd=REPOSITORY, check=True)
    port = find_free_port()
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                str(REPOSITORY / ".venv-s3" / "bin" / "python"),
                str(Path(__file__).with_name("s3_server.py")),
                host,
                str(port),
                *options,
            ],
            stdout=output,
            stderr=subprocess.STDOUT,
            env=os.environ | CREDENTIALS,
        )
    address = f"http://{host}:{port}"
    try:
        _wait_for(process, address, log)
        yield address
    finally:
        process.kill()
        process.wait()


def new_bucket(address: str) -> str:
    """An empty bucket; its ``s3://`` address with a prefix."""
    name = f"shop-{uuid4().hex[:12]}"
    requests.put(f"{address}/{name}", timeout=10).raise_for_status()
    return f"s3://{name}/production"


def machine(home: Path, url: str, address: str) -> Settings:
    """Settings of a machine whose shared state is in the bucket `url`."""
    (home / "config").mkdir(parents=True)
    (home / "config" / "storage.yaml").write_text(
        f"url: {url}\nendpoint: {address}\nretry_seconds: 5\n", encoding="utf-8"
    )
    return Settings(home)


def objects(address: str, url: str) -> list[str]:
    """Keys of all objects of the bucket below its prefix."""
    return sorted(entry["path"] for page in obstore.list(_past(address, url)) for entry in page)


def put_object(address: str, url: str, key: str, content: bytes) -> None:
    """Write an object past the store."""
    obstore.put(_past(address, url), key, content)


def get_object(address: str, url: str, key: str) -> bytes:
    """The content of an object, past the store."""
    return bytes(obstore.get(_past(address, url), key).bytes())


def delete_object(address: str, url: str, key: str) -> None:
    """Delete an object past the store."""
    obstore.delete(_past(address, url), key)


def keep_versions(address: str, url: str) -> None:
    """Let the bucket keep what is replaced and deleted in it."""
    bucket = urlsplit(url).netloc
    content = "<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>"
    requests.put(f"{address}/{bucket}?versioning", content, timeout=10).raise_for_status()


def versions(address: str, url: str) -> list[str]:
    """Keys of all versions of all objects of the bucket, and of all marks of deleted ones."""
    return [key for key, _, _ in _versions(address, url)]


def save_versions(address: str, url: str, folder: Path) -> int:
    """Write everything that the bucket has or has kept below `folder`; returns how many objects."""
    found = [(key, version) for key, version, is_object in _versions(address, url) if is_object]
    whole = _past(address, f"s3://{urlsplit(url).netloc}")
    for key, version in found:
        content = bytes(obstore.get(whole, key, options={"version": version}).bytes())
        path = folder / version.replace("/", "_") / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return len(found)


def _versions(address: str, url: str) -> Iterator[tuple[str, str, bool]]:
    """Key and version, and whether it is an object: else it is the mark of a deleted one."""
    query = {"versions": ""}
    while True:
        answer = requests.get(f"{address}/{urlsplit(url).netloc}", query, timeout=60)
        answer.raise_for_status()
        page = ElementTree.fromstring(answer.content)
        space = page.tag.rpartition("}")[0] + "}"
        for entry in page:
            kind = entry.tag.removeprefix(space)
            if kind in ("Version", "DeleteMarker"):
                key, version = (entry.findtext(f"{space}{of}") or "" for of in ("Key", "VersionId"))
                yield key, version, kind == "Version"
        if page.findtext(f"{space}IsTruncated") != "true":
            return
        query["key-marker"] = page.findtext(f"{space}NextKeyMarker") or ""
        query["version-id-marker"] = page.findtext(f"{space}NextVersionIdMarker") or ""


def _past(address: str, url: str) -> Any:
    config: Any = {"endpoint": address, "region": "us-east-1"}
    return from_url(url, config=config, client_options={"allow_http": True})


def _wait_for(process: subprocess.Popen[bytes], address: str, log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(requests.ConnectionError):
            requests.get(address, timeout=5)
            return
        time.sleep(0.1)
    raise RuntimeError(f"the S3 server did not start: {log.read_text()}")
