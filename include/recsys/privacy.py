"""What holds for customers' rights on every machine: the key of pseudonyms, and the register of
what was asked for, which names customers by their pseudonyms alone. Both are in the store, so that
machines which share it agree: ``data/privacy/``, which nobody else on a machine may read."""

import functools
import hmac
import json
import logging
import os
import re
import secrets
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from pydantic import AwareDatetime, Field, TypeAdapter, ValidationError

from recsys.config import ConfigModel, load_config, parse_json
from recsys.errors import InputError
from recsys.ids import normalise_id
from recsys.settings import Settings
from recsys.storage import Document, open_store

logger = logging.getLogger(__name__)

PRIVACY_KEY: Final = "data/privacy"
KEYS_KEY: Final = f"{PRIVACY_KEY}/keys.json"
REQUESTS_KEY: Final = f"{PRIVACY_KEY}/requests.json"
KEY_VARIABLE: Final = "RECSYS_PSEUDONYM_KEY"

# What pseudonyms begin with, so that readers can tell them from ids: `personal.PSEUDONYM`.
_MARK: Final = "~"
_HEX: Final = re.compile("[0-9a-f]{64}")
_KEY_BYTES: Final = 32
_DIGITS: Final = 32  # 128 bits
_REMEMBERED: Final = 10_000


class PrivacyConfig(ConfigModel):
    """``config/privacy.yaml``; every key is explained there."""

    FILE = "privacy.yaml"

    pseudonymous_logs: bool | None = None
    answer_days: float = Field(default=3, gt=0)


class Pseudonyms:
    """Keyed names of customers: without the key nobody tells whose they are, nor tries all ids.

    `keys` are 32 bytes each, the newest first: it makes new names, the others find those that were
    made before there was another key."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._keys = tuple(keys)
        # One customer asks for many lists.
        self.of: Callable[[str], str] = functools.lru_cache(_REMEMBERED)(self._newest)

    def all_of(self, user_id: str | int) -> tuple[str, ...]:
        """The names of a customer under all keys, the newest first."""
        text = normalise_id(user_id).encode("utf-8", "replace")
        digests = (hmac.digest(key, text, "sha256").hex()[:_DIGITS] for key in self._keys)
        return tuple(_MARK + digest for digest in digests)

    def _newest(self, user_id: str) -> str:
        return self.all_of(user_id)[0]


def load_pseudonyms(settings: Settings) -> Pseudonyms:
    """The names of this installation, by the keys of ``RECSYS_PSEUDONYM_KEY`` or those in the
    store, where the first use makes one. Raises `InputError` if there are no sound keys where
    there should be, `OSError` if none can be written."""
    if given := os.environ.get(KEY_VARIABLE, "").strip():
        return Pseudonyms(_keys_of(given.split(","), KEY_VARIABLE))
    content = open_store(settings).read(KEYS_KEY)
    return Pseudonyms(_parsed(settings, content or _change_keys(settings, lambda keys: keys)))


def names_in_logs(settings: Settings, user_id: str) -> tuple[str, ...]:
    """How logs may name somebody: by the id, and by pseudonyms if there were ever any."""
    try:
        if KEY_VARIABLE in os.environ or open_store(settings).read(KEYS_KEY) is not None:
            return user_id, *load_pseudonyms(settings).all_of(user_id)
    except (InputError, OSError) as error:  # who writes those logs tells of it
        logger.warning("Pseudonyms cannot be told | reason=%s", error)
    return (user_id,)


def keep_private(home: Path) -> None:
    """Nobody else on this machine may look into the folder of the state root `home`."""
    folder = home / PRIVACY_KEY
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)


def add_key(settings: Settings) -> int:
    """Begin with another key; those of before still find what they named. Returns how many there
    are. Raises `InputError` where the environment has the keys, and as `load_pseudonyms`."""
    if os.environ.get(KEY_VARIABLE, "").strip():
        say = "put a new one before it, with a comma between them"
        raise InputError(f"{KEY_VARIABLE}: the keys are those of the environment: {say}")
    content = _change_keys(settings, lambda keys: [secrets.token_bytes(_KEY_BYTES), *keys])
    return len(_parsed(settings, content))


class Kind(StrEnum):
    """What a customer may ask for."""

    EXPORT = "export"
    FORGET = "forget"


class Request(ConfigModel):
    """Something that was asked for on behalf of a customer, by whom, until when it has to be done,
    when it was, and what proves that."""

    number: int
    kind: Kind
    pseudonym: str
    asked_at: AwareDatetime
    asked_by: str
    due_at: AwareDatetime
    done_at: AwareDatetime | None = None
    proof: dict[str, Any] = Field(default_factory=dict)


class Register:
    """All requests of the installation, oldest first. Raises `InputError` if the file is damaged,
    `OSError` if it cannot be read or written."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._names = load_pseudonyms(settings)
        self._document = Document(
            open_store(settings),
            REQUESTS_KEY,
            parse=functools.partial(_requests, settings.home / REQUESTS_KEY),
            dump=lambda found: _dumped([one.model_dump(mode="json") for one in found]),
            on_damage=functools.partial(
                logger.error, "The register of requests is damaged | set_aside=%s, %s"
            ),
            last_good=f"{REQUESTS_KEY.removesuffix('.json')}.last_good.json",
        )

    def requests(self, user_id: str | None = None) -> list[Request]:
        """All, or those of one customer."""
        mine = None if user_id is None else self._names.all_of(user_id)
        return [one for one in self._document.read() if mine is None or one.pseudonym in mine]

    def open(self, kind: Kind, user_ids: Sequence[str], asked_by: str) -> list[Request]:
        """Note that something was asked for on behalf of each of the customers."""
        now = datetime.now(UTC)
        due = now + timedelta(days=load_config(self._settings, PrivacyConfig).answer_days)
        about: dict[str, Any] = {"kind": kind, "asked_at": now, "due_at": due}
        about["asked_by"] = asked_by

        def add(requests: list[Request]) -> list[Request]:
            first = 1 + max((one.number for one in requests), default=0)
            names = map(self._names.of, user_ids)
            new = [
                Request(number=at, pseudonym=who, **about) for at, who in enumerate(names, first)
            ]
            requests += new
            return new

        keep_private(self._settings.home)
        return self._document.change(add)

    def finish(self, numbers: Sequence[int], proof: dict[str, Any]) -> None:
        """Note that it was done."""
        done = {"done_at": datetime.now(UTC), "proof": proof}

        def close(requests: list[Request]) -> None:
            for at, one in enumerate(requests):
                if one.number in numbers:
                    requests[at] = one.model_copy(update=done)

        self._document.change(close)


_REQUESTS: Final = TypeAdapter(list[Request])


def _requests(path: Path, content: bytes | None) -> list[Request]:
    try:
        return [] if content is None else _REQUESTS.validate_python(parse_json(content)["requests"])
    except (ValueError, KeyError, TypeError, ValidationError) as error:
        raise InputError(f"{path}: is no register of customers' requests: {error}") from error


def _dumped(requests: list[dict[str, Any]]) -> bytes:
    text = json.dumps({"requests": requests}, ensure_ascii=False, indent=1, allow_nan=False)
    return f"{text}\n".encode()


def _change_keys(settings: Settings, change: Callable[[list[bytes]], list[bytes]]) -> bytes:
    def changed(content: bytes | None) -> bytes:
        before = () if content is None else _parsed(settings, content)
        keys = change(list(before) or [secrets.token_bytes(_KEY_BYTES)])
        return f"{json.dumps({'keys': [key.hex() for key in keys]}, indent=1)}\n".encode()

    keep_private(settings.home)
    return open_store(settings).change(KEYS_KEY, changed)


def _parsed(settings: Settings, content: bytes) -> tuple[bytes, ...]:
    place = str(settings.home / KEYS_KEY)
    try:
        return _keys_of([str(one) for one in parse_json(content)["keys"]], place)
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{place}: expected keys, 64 hexadecimal digits each; take the file from a backup: "
            f"without it pseudonyms cannot be told any more: {error}"
        ) from error


def _keys_of(texts: Sequence[str], place: str) -> tuple[bytes, ...]:
    stripped = [text.strip() for text in texts]
    if not stripped or not all(map(_HEX.fullmatch, stripped)):
        raise InputError(f"{place}: expected keys of 64 hexadecimal digits, the newest first")
    return tuple(map(bytes.fromhex, stripped))
