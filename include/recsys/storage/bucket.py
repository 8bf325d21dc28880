"""Objects of one bucket below one prefix.

fsspec uploads and lists; reading in one request and writing on a condition is beyond it, and goes
to obstore, the client behind it."""

import contextlib
import hashlib
import io
import os
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError
from obstore.fsspec import FsspecStore
from obstore.store import from_url

from recsys.storage.store import StorageError

_BLOCK = 8 << 20
_CONNECT_TIMEOUT = timedelta(seconds=5)
_LONGEST_TRANSFER = timedelta(minutes=10)  # of one request: a part of a file, or a whole one down
_LONGEST_ANSWER_SECONDS = 20.0
_MAX_RETRIES = 10


class ConflictError(Exception):
    """Somebody else wrote the object since it was read."""


class Bucket:
    """The objects below `url`, an ``s3://bucket/prefix``; keys are relative to that.

    `endpoint` is the address of the service, None for Amazon's. A request without an answer is
    repeated for `retry_seconds`. A server that accepts a request and says nothing is given as long,
    and for what is no file at most 20 seconds a time."""

    def __init__(self, url: str, endpoint: str | None, region: str, retry_seconds: float) -> None:
        parts = urlsplit(url)
        self.url, self._service = url, (endpoint, region)
        self._root = f"{parts.netloc}{parts.path}".rstrip("/")
        config: Any = {"region": region} | ({} if endpoint is None else {"endpoint": endpoint})
        patience = timedelta(seconds=retry_seconds)
        retry: Any = {"max_retries": _MAX_RETRIES, "retry_timeout": patience}
        answer = min(patience, timedelta(seconds=_LONGEST_ANSWER_SECONDS))

        def options(**timeouts: timedelta) -> Any:
            client = {"allow_http": (endpoint or "").startswith("http://"), **timeouts}
            client["connect_timeout"] = _CONNECT_TIMEOUT
            return {"config": config, "client_options": client, "retry_config": retry}

        transfers = options(read_timeout=patience, timeout=_LONGEST_TRANSFER)
        self._files = FsspecStore("s3", **transfers)
        self._contents = from_url(url, **transfers)
        self._objects = from_url(url, **options(timeout=answer))
        self._process = os.getpid()

    def read(self, key: str) -> tuple[bytes, str] | None:
        """Content and ETag of an object, None when there is none."""
        with self._explained(key), self._maybe_missing():
            answer = obstore.get(self._objects, key)
            return bytes(answer.bytes()), str(answer.meta["e_tag"])
        return None

    def tag(self, key: str) -> str | None:
        """The ETag of an object, None when there is none."""
        with self._explained(key), self._maybe_missing():
            return str(obstore.head(self._objects, key)["e_tag"])
        return None

    def write(self, key: str, content: bytes, *, expected: str | None) -> None:
        """Write an object if its ETag is `expected`, or, for None, if it does not exist. Raises
        `ConflictError` otherwise."""
        mode: Any = "create" if expected is None else {"e_tag": expected}
        with self._explained(key):
            try:
                obstore.put(self._objects, key, content, mode=mode)
            except FileNotFoundError as error:
                with self._maybe_missing():
                    raise
                if expected is None:
                    what = f"{self.address(key)}: cannot be written: {error}"
                    raise StorageError(what) from error
                raise ConflictError(key) from error  # removed since it was read
            except (AlreadyExistsError, PreconditionError) as error:
                raise ConflictError(key) from error

    def upload(self, file: Path, key: str) -> None:
        """Copy a file into an object of a name that nobody else uses."""
        with self._explained(key):
            self._files.put_file(str(file), f"s3://{self._root}/{key}")

    def download(self, key: str, file: Path) -> str:
        """Copy an object into `file`; its SHA-256. Raises `FileNotFoundError`. One request, so that
        an object that is replaced meanwhile is not half old and half new."""
        digest = hashlib.sha256()
        with self._explained(key), file.open("wb") as target:
            for block in obstore.get(self._contents, key).stream(min_chunk_size=_BLOCK):
                target.write(block)
                digest.update(block)
        return digest.hexdigest()

    def open(self, key: str) -> BinaryIO:
        """An object for reading parts of it, a request for each. Raises `FileNotFoundError`."""
        with self._explained(key):
            reader = obstore.open_reader(self._contents, key)
        return io.BufferedReader(_Parts(reader, lambda: self._explained(key)))

    def children(self, prefix: str) -> list[str]:
        """Names of the objects right below `prefix`."""
        with self._explained(prefix), self._maybe_missing():
            found = obstore.list_with_delimiter(self._objects, f"{prefix}/")["objects"]
            return [Path(entry["path"]).name for entry in found]
        return []

    def below(self, prefix: str) -> dict[str, datetime]:
        """Every object below `prefix` with the time of its writing."""
        with self._explained(prefix):
            pages = obstore.list(self._objects, f"{prefix}/")
            return {entry["path"]: entry["last_modified"] for page in pages for entry in page}

    def written(self, key: str) -> datetime:
        """When the object was written. Raises `FileNotFoundError`."""
        with self._explained(key):
            return obstore.head(self._objects, key)["last_modified"]

    def delete(self, keys: list[str]) -> None:
        """Delete objects; those that do not exist are fine."""
        if keys:
            with self._explained(keys[0]), contextlib.suppress(FileNotFoundError):
                obstore.delete(self._objects, keys)

    def remove_old(self, prefix: str, is_meant: Callable[[str], bool]) -> int:
        """Remove what the service keeps of objects below `prefix` that were replaced or deleted and
        whose key is meant; how many versions there were: none where it keeps none. Raises
        `StorageError` if that is not allowed."""
        if not self._keeps_old():
            return 0
        from recsys.storage.old_objects import OldObjects  # most buckets have none

        return OldObjects(self.url, *self._service).remove(prefix, is_meant)

    def _keeps_old(self) -> bool:
        with self._explained(""), self._maybe_missing():
            for page in obstore.list(self._objects, chunk_size=1):
                for entry in page:
                    return obstore.head(self._objects, entry["path"])["version"] is not None
        return True  # nobody can tell

    def address(self, key: str) -> str:
        """What people call the object."""
        return f"{self.url}/{key}"

    @contextlib.contextmanager
    def _maybe_missing(self) -> Iterator[None]:
        """An object that does not exist ends the block; a bucket that does not is an error."""
        try:
            yield
        except FileNotFoundError as error:
            if "NoSuchBucket" in str(error):
                raise StorageError(f"{self.url}: the bucket does not exist") from error

    @contextlib.contextmanager
    def _explained(self, key: str) -> Iterator[None]:
        """Turn what the client says into a sentence that names the object."""
        if os.getpid() != self._process:
            forked = "was opened before this process was forked; the client's threads do not"
            raise StorageError(f"{self.url}: {forked} survive that, so start it afresh (spawn)")
        try:
            yield
        except (BaseError, PermissionError) as error:
            said = str(error).split("\n", 1)[0]
            raise StorageError(f"{self.address(key)}: {said}") from error


class _Parts(io.RawIOBase):
    """An object as Python's files are."""

    def __init__(
        self,
        reader: "obstore.ReadableFile",
        explained: Callable[[], contextlib.AbstractContextManager[None]],
    ) -> None:
        self._reader, self._explained = reader, explained

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0, /) -> int:
        return self._reader.seek(offset, whence)

    def tell(self) -> int:
        return self._reader.tell()

    def readinto(self, buffer: Any, /) -> int:
        with self._explained():
            found = self._reader.read(len(buffer))
        buffer[: len(found)] = bytes(found)
        return len(found)
