"""What a versioned bucket keeps of objects that were replaced or deleted.

The client behind `recsys.storage.bucket` knows nothing of it, so the two requests that are needed
are made here, signed as S3 wants it (Signature Version 4), with the keys of the environment."""

import base64
import hashlib
import hmac
import os
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Final, NamedTuple
from urllib.parse import quote, unquote_plus, urlencode, urlsplit
from xml.etree import ElementTree
from xml.sax.saxutils import escape

import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from recsys.storage.store import StorageError

_AT_ONCE: Final = 1000  # more S3 does not take
_TIMEOUT_SECONDS: Final = 60.0
_RETRY: Final = Retry(5, backoff_factor=0.5, status_forcelist=(500, 502, 503), allowed_methods=None)
_RIGHTS: Final = "s3:ListBucketVersions and s3:DeleteObjectVersion"


class _Old(NamedTuple):
    key: str
    version: str
    is_marker: bool
    """Whether it says that the object was deleted then."""


class OldObjects:
    """Those below `url`, an ``s3://bucket/prefix``; `endpoint` and `region` as in `Bucket`. Raises
    `StorageError` if the environment has no keys for it."""

    def __init__(self, url: str, endpoint: str | None, region: str) -> None:
        self._url, self._region = url, region
        parts = urlsplit(url)
        self._prefix = f"{parts.path.strip('/')}/".lstrip("/")
        base = endpoint or f"https://s3.{region}.amazonaws.com"
        self._address = f"{base.rstrip('/')}/{parts.netloc}"
        names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
        self._id, self._secret = (os.environ.get(name, "") for name in names)
        if not (self._id and self._secret):
            raise StorageError(
                f"{url}: keeps old versions of its objects, which are removed with {names[0]} and "
                f"{names[1]} of the environment alone: set them for this, with {_RIGHTS}"
            )
        self._session = requests.Session()
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, HTTPAdapter(max_retries=_RETRY))

    def remove(self, prefix: str, is_meant: Callable[[str], bool]) -> int:
        """Remove what is kept of replaced and deleted objects below `prefix` whose key is meant;
        returns how many versions there were. Objects themselves stay. Raises `StorageError` if the
        service cannot be reached or refuses."""
        found = [one for one in self._below(prefix) if is_meant(one.key)]
        # Without its mark a deleted object would be there again as long as it has versions.
        for markers in (False, True):
            these = [one for one in found if one.is_marker is markers]
            for begin in range(0, len(these), _AT_ONCE):
                self._delete(these[begin : begin + _AT_ONCE])
        return len(found)

    def _below(self, prefix: str) -> Iterator[_Old]:
        query = {"versions": "", "prefix": f"{self._prefix}{prefix}", "encoding-type": "url"}
        query["max-keys"] = str(_AT_ONCE)
        while True:
            page = self._ask("GET", query)
            encoded = page.findtext("EncodingType") == "url"
            for entry in page:
                is_marker = entry.tag == "DeleteMarker"
                is_old = entry.tag == "Version" and entry.findtext("IsLatest") != "true"
                if is_marker or is_old:
                    key = entry.findtext("Key") or ""
                    key = unquote_plus(key) if encoded else key
                    version = entry.findtext("VersionId") or "null"
                    yield _Old(key.removeprefix(self._prefix), version, is_marker)
            if page.findtext("IsTruncated") != "true":
                return
            for name, said in (("key-marker", "Key"), ("version-id-marker", "VersionId")):
                marker = page.findtext(f"Next{said}Marker") or ""
                query[name] = unquote_plus(marker) if encoded and said == "Key" else marker

    def _delete(self, these: list[_Old]) -> None:
        objects = (
            f"<Object><Key>{escape(self._prefix + one.key)}</Key>"
            f"<VersionId>{escape(one.version)}</VersionId></Object>"
            for one in these
        )
        answer = self._ask(
            "POST", {"delete": ""}, f"<Delete><Quiet>true</Quiet>{''.join(objects)}</Delete>"
        )
        for error in answer.iter("Error"):
            self._refuse(f"{error.findtext('Key')}: {error.findtext('Code')}")

    def _ask(self, method: str, query: Mapping[str, str], content: str = "") -> ElementTree.Element:
        body = content.encode()
        text = urlencode(sorted(query.items()), quote_via=quote, safe="")
        headers = self._signed(method, text, body)
        try:
            answer = self._session.request(
                method,
                f"{self._address}?{text}",
                data=body,
                headers=headers,
                timeout=_TIMEOUT_SECONDS,
            )
            if not answer.ok:
                self._refuse(f"{answer.status_code} {_code_of(answer.content)}")
            return _parsed(answer.content)
        except (requests.RequestException, ElementTree.ParseError) as error:
            raise StorageError(
                f"{self._url}: its old versions cannot be listed: {error}"
            ) from error

    def _refuse(self, said: str) -> None:
        need = f"the key of the environment needs {_RIGHTS}"
        raise StorageError(f"{self._url}: old versions are not removed ({said}): {need}")

    def _signed(self, method: str, query: str, body: bytes) -> dict[str, str]:
        moment = datetime.now(UTC)
        parts, digest = urlsplit(self._address), hashlib.sha256(body).hexdigest()
        headers = {
            "content-md5": base64.b64encode(
                hashlib.md5(body, usedforsecurity=False).digest()
            ).decode(),
            "host": parts.netloc,
            "x-amz-content-sha256": digest,
            "x-amz-date": f"{moment:%Y%m%dT%H%M%SZ}",
        }
        if token := os.environ.get("AWS_SESSION_TOKEN"):
            headers["x-amz-security-token"] = token
        names = ";".join(headers)  # they are in order
        lines = [method, quote(parts.path), query, *(f"{name}:{headers[name]}" for name in headers)]
        request = "\n".join([*lines, "", names, digest])
        scope = f"{moment:%Y%m%d}/{self._region}/s3/aws4_request"
        hashed = hashlib.sha256(request.encode()).hexdigest()
        key = f"AWS4{self._secret}".encode()
        for part in scope.split("/"):
            key = hmac.digest(key, part.encode(), "sha256")
        text = "\n".join(["AWS4-HMAC-SHA256", headers["x-amz-date"], scope, hashed])
        signature = hmac.new(key, text.encode(), "sha256").hexdigest()
        credential = f"AWS4-HMAC-SHA256 Credential={self._id}/{scope}"
        signed = f"{credential}, SignedHeaders={names}, Signature={signature}"
        return {**headers, "Authorization": signed}


def _parsed(content: bytes) -> ElementTree.Element:
    """The document, without its namespace."""
    root = ElementTree.fromstring(content)  # noqa: S314 - of the shop's own bucket
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
    return root


def _code_of(content: bytes) -> str:
    """What S3 calls what is wrong."""
    try:
        return _parsed(content).findtext("Code") or ""
    except ElementTree.ParseError:
        return ""
