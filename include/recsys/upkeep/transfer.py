"""``python -m recsys storage push|pull``: from a state root into a bucket, and back out of it."""

from typing import Any

from recsys.comments.scorers import SCORERS_KEY
from recsys.content.embeddings import POINTER_KEY as CURRENT_SET_KEY
from recsys.content.embeddings import SETS_KEY
from recsys.data.staging import RAW_KEY, STAGING_KEY, hand_in_files, hand_in_segments
from recsys.data.versions import POINTER_KEY, VERSIONS_KEY
from recsys.errors import InputError
from recsys.models.model_types import MODEL_TYPES
from recsys.pseudonyms import KEYS_KEY, REQUESTS_KEY, keep_private
from recsys.publishing import write_bytes
from recsys.registry import ARTIFACTS_KEY
from recsys.served_lists import SERVED_KEY, hand_in_lists
from recsys.settings import EXPERIMENTS_KEY, HISTORY_KEY, REGISTRY_KEY, Settings
from recsys.storage import Store, open_store

FOLDERS = (
    VERSIONS_KEY,
    SCORERS_KEY,
    SETS_KEY,
    *(f"{ARTIFACTS_KEY}/{family}" for family in sorted(MODEL_TYPES)),
)
POINTERS = {POINTER_KEY: VERSIONS_KEY, CURRENT_SET_KEY: SETS_KEY}
FILES = (REGISTRY_KEY, HISTORY_KEY, EXPERIMENTS_KEY, KEYS_KEY, REQUESTS_KEY)


def push_state(settings: Settings) -> dict[str, Any]:
    """Copy the shared state of one machine into the empty store that its configuration names.

    The bucket's service must honour conditional writes (`Store.check`). Folders go first, what
    leads to them last; stopped half way, it can be repeated. Returns how many folders, files and
    pointers are in the store now.

    Raises `InputError` if the store is the state root itself, or holds a registry, a history or a
    pointer that differs: two shops are never mixed."""
    store, own = open_shared(settings), Store(settings.home)
    store.check()
    folders = [f"{prefix}/{name}" for prefix in FOLDERS for name in own.names(prefix)]
    for key in folders:
        store.publish(key)
    served = settings.home / SERVED_KEY
    found = [*settings.raw.rglob("*"), *served.glob("day=*/*")]
    files = [
        path.relative_to(settings.home).as_posix()
        for path in sorted(found)
        if path.is_file() and not path.name.startswith(".")
    ]
    for key in files:
        store.share(key)
    hand_in_segments(settings)
    hand_in_files(settings)
    hand_in_lists(settings)
    changed = [key for key in FILES if _push_file(settings, store, own, key)]
    pointers = [key for key, prefix in POINTERS.items() if _push_pointer(store, own, key, prefix)]
    return {"folders": len(folders), "files": len(files) + len(changed), "pointers": len(pointers)}


def pull_state(settings: Settings) -> dict[str, Any]:
    """Copy everything that is shared into this state root, which is then complete by itself, for a
    backup or for going back to ``file://``. Returns how many folders, files and pointers there
    were to copy."""
    store = open_shared(settings)
    folders = [f"{prefix}/{name}" for prefix in FOLDERS for name in store.names(prefix)]
    for key in folders:
        store.fetch(key)
    for prefix in (RAW_KEY, STAGING_KEY, SERVED_KEY):
        store.mirror(prefix, prefix)
    contents = {key: content for key in FILES if (content := store.read(key)) is not None}
    if KEYS_KEY in contents:
        keep_private(settings.home)
    for key, content in contents.items():
        write_bytes(settings.home / key, content)
    known = {pointer: name for pointer in POINTERS if (name := store.leads_to(pointer))}
    for pointer, name in known.items():
        key = f"{POINTERS[pointer]}/{name}"
        store.fetch(key)
        store.follow(pointer, key)
    return {"folders": len(folders), "files": len(contents), "pointers": len(known)}


def open_shared(settings: Settings) -> Store:
    """The bucket of `settings`. Raises `InputError` if there is none."""
    store = open_store(settings)
    if not store.shared:
        raise InputError("config/storage.yaml names no bucket: the state root is the store")
    return store


def _push_file(settings: Settings, store: Store, own: Store, key: str) -> bool:
    content = own.read(key)
    if content is None:
        return False

    def first(there: bytes | None) -> bytes:
        if there not in (None, content):
            raise InputError(
                f"{key}: the store has another one than {settings.home}; use an empty prefix"
            )
        return content

    store.change(key, first)
    return True


def _push_pointer(store: Store, own: Store, pointer: str, prefix: str) -> bool:
    name = own.leads_to(pointer)
    if name is None:
        return False

    def first(there: str | None) -> bool:
        if there not in (None, name):
            raise InputError(f"{pointer}: leads to {there} in the store already, not to {name}")
        return True

    return store.point(pointer, f"{prefix}/{name}", first)
