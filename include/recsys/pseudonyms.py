"""Names of customers where their ids must not stand: pseudonyms, and the keys that make them.

The keys are in the store, so that machines which share it agree: in ``data/privacy/``, which nobody
else on a machine may read."""

import contextlib
import functools
import hashlib
import hmac
import json
import logging
import os
import re
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from recsys.config import parse_json
from recsys.errors import InputError
from recsys.ids import normalise_id
from recsys.settings import Settings
from recsys.storage import open_store

logger = logging.getLogger(__name__)

PRIVACY_KEY: Final = "data/privacy"
KEYS_KEY: Final = f"{PRIVACY_KEY}/keys.json"
REQUESTS_KEY: Final = f"{PRIVACY_KEY}/requests.json"
LAST_GOOD_REQUESTS_KEY: Final = f"{PRIVACY_KEY}/requests.last_good.json"
KEY_VARIABLE: Final = "RECSYS_PSEUDONYM_KEY"

# What pseudonyms begin with, so that readers can tell them from ids: `PSEUDONYM`.
_MARK: Final = "~"
_HEX: Final = re.compile("[0-9a-f]{64}")
_KEY_BYTES: Final = 32
_DIGITS: Final = 32  # 128 bits
_FINGERPRINT_DIGITS: Final = 16
_REMEMBERED: Final = 10_000


class Pseudonyms:
    """Keyed names of customers: without the key nobody tells whose they are, nor tries all ids.

    `keys` are 32 bytes each, the newest first: it makes new names, the others find those that were
    made before there was another key."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._keys = tuple(keys)
        # One customer asks for many lists.
        self.of: Callable[[str], str] = functools.lru_cache(_REMEMBERED)(self._newest)

    @property
    def fingerprints(self) -> tuple[str, ...]:
        """What tells the keys from others, and nothing else of them, the newest first."""
        marked = (b"key of pseudonyms" + key for key in self._keys)
        return tuple(hashlib.sha256(one).hexdigest()[:_FINGERPRINT_DIGITS] for one in marked)

    def __reduce__(self) -> tuple[type["Pseudonyms"], tuple[tuple[bytes, ...]]]:
        return Pseudonyms, (self._keys,)  # what is remembered does not travel

    def all_of(self, user_id: str | int) -> tuple[str, ...]:
        """The names of a customer under all keys, the newest first."""
        text = normalise_id(user_id).encode("utf-8", "replace")
        names = [_MARK + hmac.digest(key, text, "sha256").hex()[:_DIGITS] for key in self._keys]
        return tuple(names)

    def _newest(self, user_id: str) -> str:
        return self.all_of(user_id)[0]


def load_pseudonyms(settings: Settings) -> Pseudonyms:
    """The names of this installation, by the keys of ``RECSYS_PSEUDONYM_KEY`` or those in the
    store, where the first use makes one. Raises `InputError` if there are no sound keys where
    there should be: not if the register names somebody by keys that are gone, whom nobody would
    find by a new one. `OSError` if none can be written."""
    if given := os.environ.get(KEY_VARIABLE, "").strip():
        return Pseudonyms(_keys_of(given.split(","), KEY_VARIABLE))
    store = open_store(settings)
    content = store.read(KEYS_KEY)
    registers = (REQUESTS_KEY, LAST_GOOD_REQUESTS_KEY)
    if content is None and any(store.read(key) is not None for key in registers):
        place = settings.home / KEYS_KEY
        raise InputError(
            f"{place}: is gone, and the register names customers by it: take it from a backup; if "
            "there is none, move the register away: whom it names nobody can tell any more"
        )
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
    """Nobody else on this machine may look into the folder of the state root `home`, nor into its
    files where they are copied."""
    folder = home / PRIVACY_KEY
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    for path in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):  # a temporary one of another process
            path.chmod(0o600)


def add_key(settings: Settings) -> int:
    """Begin with another key; those of before still find what they named. Returns how many there
    are. Raises `InputError` where the environment has the keys, and as `load_pseudonyms`."""
    if os.environ.get(KEY_VARIABLE, "").strip():
        say = "put a new one before it, with a comma between them"
        raise InputError(f"{KEY_VARIABLE}: the keys are those of the environment: {say}")
    load_pseudonyms(settings)  # a new one alone would not tell whom the register names
    content = _change_keys(settings, lambda keys: [secrets.token_bytes(_KEY_BYTES), *keys])
    return len(_parsed(settings, content))


def adopt_keys(settings: Settings, other: Settings) -> None:
    """Take over the keys of another copy of this installation, if it has any in its store, before
    those that are here. Raises `InputError` if one of the two files is damaged."""
    theirs = open_store(other).read(KEYS_KEY)
    if theirs is None:
        return
    keys = _parsed(other, theirs)
    known = open_store(settings).read(KEYS_KEY)
    own = () if known is None else _parsed(settings, known)
    merged = [*keys, *(key for key in own if key not in keys)]
    _change_keys(settings, lambda _: merged)


def place_of_keys(settings: Settings) -> str:
    """Where the keys are read: the variable, or the file."""
    given = os.environ.get(KEY_VARIABLE, "").strip()
    return KEY_VARIABLE if given else str(settings.home / KEYS_KEY)


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
