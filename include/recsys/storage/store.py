"""What every store offers, the state root as one, and the small documents that jobs keep there."""

import shutil
from collections.abc import Callable, Collection
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Generic, TypeVar

from filelock import FileLock

from recsys.errors import InputError
from recsys.publishing import atomic_path, point_link, set_aside, write_bytes
from recsys.retention import Retention
from recsys.storage.bundle import Bundle, DamagedError, remove_folder, remove_remains

Content = TypeVar("Content")
Result = TypeVar("Result")
BundleT = TypeVar("BundleT", bound=Bundle)

Change = Callable[[bytes | None], bytes]
"""From the content of a file (None when there is none) to its new content; may run repeatedly."""

_LOCK_SECONDS = 60.0
_ATTEMPTS = 20


class StorageError(OSError):
    """The store cannot be reached or refuses; the text names the address. Trying again may help."""


class Store:
    """Folders that never change, pointers to them, and files that change as a whole.

    Keys are paths below the state root with ``/``. A folder is used in its place below the state
    root, whatever the store. No method relies on a lock that another machine would have to honour.

    This one is ``file://``, the state root: what is published is where it belongs already, and
    its locks hold among the processes of one machine. A store elsewhere overrides all of it."""

    shared = False
    """Whether the state lives elsewhere than in the state root."""

    def __init__(self, home: Path) -> None:
        self._home = home

    def check(self) -> None:
        """Try what all else relies on. Raises `StorageError` if the store cannot be reached,
        `InputError` if it does not keep what it promises."""

    # folders
    def publish(self, key: str) -> None:
        """Make the finished folder at `key` of the state root known to all machines, once or again.
        Raises `FileExistsError` if the store has another folder of this key."""
        if not (self._home / key).is_dir():
            raise FileNotFoundError(f"{self._home / key}: there is no folder to publish")

    def fetch(self, key: str) -> Path:
        """The folder `key` in the state root, copied there first if need be: all of it, or nothing.

        Raises `FileNotFoundError` if the store does not have it, `DamagedError` if a file is not
        what was published."""
        folder = self._home / key
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder}: does not exist")
        return folder

    def names(self, prefix: str) -> list[str]:
        """Names of the complete folders right below `prefix`, sorted."""
        root = self._home / prefix
        folders = (entry for entry in (root.iterdir() if root.is_dir() else ()) if entry.is_dir())
        return sorted(at.name for at in folders if not at.is_symlink() and at.name[0] != ".")

    def read_file(self, key: str, name: str) -> bytes:
        """One file of the folder `key`, without fetching the rest. Raises `FileNotFoundError`."""
        return (self._home / key / name).read_bytes()

    def remove(self, key: str) -> bool:
        """Remove the folder `key`, unless a process of this machine reads it; whether it is gone.

        Nobody finds it any more before its first file goes; readers on other machines have copies.
        """
        return remove_folder(self._home / key)

    def remove_unfinished(self, prefix: str, before: datetime) -> list[str]:
        """Remove what died below `prefix`, half published before that moment or half removed;
        what it was."""
        return remove_remains(self._home / prefix)

    # pointers
    def leads_to(self, pointer: str) -> str | None:
        """Name of the folder that the pointer leads to, None while it leads nowhere."""
        link = self._home / pointer
        if link.is_symlink():
            return link.readlink().name
        if link.exists():
            raise DamagedError(f"{link}: expected a link to a published folder; move it away")
        return None

    def follow(self, pointer: str, key: str) -> None:
        """Let the link `pointer` of the state root lead to the fetched folder `key` as well."""

    def point(self, pointer: str, key: str, may_replace: Callable[[str | None], bool]) -> bool:
        """Let `pointer` lead to `key`, if `may_replace` agrees to what it leads to at that moment.

        Two machines cannot undo each other's move: the one that is later is asked again. Returns
        whether the pointer leads to `key` now."""
        # The lock is not beside the link: there are only published folders there.
        with self._alone(self._home / "data" / f".{pointer.replace('/', '-')}"):
            agreed = may_replace(self.leads_to(pointer))
            if agreed:
                point_link(self._home / pointer, self._home / key)
        return agreed

    # files
    def read(self, key: str) -> bytes | None:
        """The content of a file, None when there is none."""
        try:
            return (self._home / key).read_bytes()
        except FileNotFoundError:
            return None
        except IsADirectoryError as error:
            raise DamagedError(f"{self._home / key}: is a folder, expected a file") from error

    def revision(self, key: str) -> str | None:
        """Something that is another one after every change of a file, None when there is none: it
        costs less than reading."""
        try:
            found = (self._home / key).stat()
        except FileNotFoundError:
            return None
        return f"{found.st_ino}-{found.st_mtime_ns}-{found.st_size}"

    def change(self, key: str, change: Change) -> bytes:
        """Replace a file by what `change` makes of its content, which is returned; no other change
        is lost. What `change` raises leaves the file as it was."""
        path = self._home / key
        with self._alone(path):
            if path.is_dir():
                set_aside(path)
            content = change(self.read(key))
            write_bytes(path, content)
        return content

    # files that come in once and are not changed
    def share(self, key: str) -> None:
        """Make the file at `key` of the state root, of a name of its own, known to all machines."""

    def share_copy(self, file: Path, key: str) -> None:
        """Make a copy of a file, wherever it is, known to all machines as `key`."""
        with atomic_path(self._home / key) as temporary:
            shutil.copyfile(file, temporary)

    def bring(self, key: str) -> Path:
        """The shared file `key` in its place below the state root, copied there. Raises
        `FileNotFoundError` if there is none."""
        path = self._home / key
        if not path.is_file():
            raise FileNotFoundError(f"{path}: does not exist")
        return path

    def open(self, key: str) -> BinaryIO:
        """The shared file `key` for reading parts of it where it is. Raises `FileNotFoundError`."""
        return (self._home / key).open("rb")

    def mirror(self, prefix: str, into: str) -> None:
        """Copy files below `prefix` that are new or newer in the store to below `into` here."""

    def see(self, prefix: str, into: str) -> None:
        """Have below `into`, which is for nothing else, the files right below `prefix` that the
        store has now, and no others: to look at what the machine whose turn it is takes away."""
        self.mirror(prefix, into)
        there = self.files(prefix) if self.shared else set()
        folder = self._home / into
        for path in folder.iterdir() if folder.is_dir() else ():
            if path.name not in there:
                path.unlink(missing_ok=True)

    def files(self, prefix: str) -> set[str]:
        """Paths of the shared files below `prefix`, relative to it."""
        folder = self._home / prefix
        return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}

    def discard(self, key: str) -> None:
        """Take a shared file away from all machines; copies in state roots stay."""

    def discard_older(self, prefix: str, before: datetime) -> None:
        """`discard` every file below `prefix` that was shared before that moment."""

    def remove_old(self, prefix: str, is_meant: Callable[[str], bool]) -> int:
        """Remove what the store still has of files below `prefix` that were replaced or removed, of
        those whose key is meant; returns how many there were. Raises `StorageError` if it must not.
        """
        return 0

    def _alone(self, path: Path) -> FileLock:
        path.parent.mkdir(parents=True, exist_ok=True)
        return FileLock(f"{path}.lock", timeout=_LOCK_SECONDS)


def open_current(
    store: Store, pointer: str, prefix: str, kind: Callable[[Path], BundleT]
) -> BundleT | None:
    """The bundle below `prefix` that `pointer` leads to, None while it leads nowhere.

    `kind` opens a folder. Pointer and folder may change meanwhile: then they are looked up again.
    Raises `DamagedError` if the pointer leads to nothing, and what `kind` raises."""
    for _ in range(_ATTEMPTS):
        name = store.leads_to(pointer)
        if name is None:
            return None
        key = f"{prefix}/{name}"
        try:
            found = kind(store.fetch(key))
        except FileNotFoundError as error:
            if store.leads_to(pointer) == name:
                what = f"leads to {key}, which is not there: {error.filename or error}"
                raise DamagedError(f"{pointer}: {what}") from error
        else:
            store.follow(pointer, key)
            return found
    raise DamagedError(f"{pointer}: leads elsewhere faster than it can be followed")


def bundle_retention(
    what: str,
    store: Store,
    root: Path,
    prefix: str,
    kept_by: Callable[[list[str]], Collection[str]],
) -> Retention:
    """What a pile of bundles keeps: of the names of all, oldest first, those that stay. `root` is
    the folder of the state root that belongs to `prefix`. An open one is not removed."""
    return Retention(
        what,
        root,
        found=lambda: [root / name for name in store.names(prefix)],
        kept_by=lambda paths: [root / name for name in kept_by([path.name for path in paths])],
        remove=lambda path: store.remove(f"{prefix}/{path.name}"),
    )


class Document(Generic[Content]):
    """A small file that several jobs change. Nonsense in it stops nobody: it is set aside.

    `parse` makes content of bytes, raises `InputError` for nonsense, and of None makes an empty
    one; `dump` is the way back. `on_damage` is told the name of what was set aside, and why.
    `last_good` is the key of a copy of the last sound content, which is used while the document is
    damaged or gone; None to begin a new one then. `lost` makes a sentence of what the document
    lacks that the last good one has, of documents that no change takes anything from: then it is
    damaged, too."""

    def __init__(
        self,
        store: Store,
        key: str,
        *,
        parse: Callable[[bytes | None], Content],
        dump: Callable[[Content], bytes],
        on_damage: Callable[[str, str], None],
        last_good: str | None = None,
        lost: Callable[[Content, Content], str | None] | None = None,
    ) -> None:
        self._store, self._key, self._last_good = store, key, last_good
        self._parse, self._dump, self._on_damage = parse, dump, on_damage
        self._lost = lost

    def read(self) -> Content:
        """The content, or the last good one. Raises `InputError` if there is neither."""
        content = self._stored()
        if self._problem(content) is not None:
            content = self._kept() or content
        return self._parse(content)

    def problem(self) -> str | None:
        """What is wrong with it, None when it is sound or was never written."""
        return self._problem(self._stored())

    def repair(self) -> str | None:
        """Write the last good content again if it is damaged or gone; what was wrong, else None.
        Without a last good copy nothing is changed: somebody may still save what is there."""
        problem = self.problem()
        if problem is not None and self._kept() is not None:
            self.change(lambda content: None)
        return problem

    def change(self, apply: Callable[[Content], Result]) -> Result:
        """Let `apply` change the content; what it raises leaves the document as it was.

        It may run more than once: the last time counts, and gives the result. Raises `OSError` if
        nothing can be written."""
        results: list[Result] = []

        def changed(before: bytes | None) -> bytes:
            problem = self._problem(before)
            if problem is not None:
                self._set_aside(before, problem)
                before = self._kept()
            content = self._parse(before)
            results.append(apply(content))
            return self._dump(content)

        self._store.change(self._key, changed)
        if self._last_good is not None:
            self._store.change(self._last_good, self._newest)
        return results[-1]

    def _newest(self, kept: bytes | None) -> bytes:
        """The document as it is now, not as this writer left it: writers arrive in any order."""
        now = self._stored()
        if now is None or self._problem(now) is not None:
            return kept or self._dump(self._parse(None))
        return now

    def _stored(self) -> bytes | None:
        try:
            return self._store.read(self._key)
        except DamagedError:  # a folder: as good as nonsense
            return b""

    def _problem(self, content: bytes | None) -> str | None:
        if content is None:
            gone = self._kept() is not None
            return f"{self._key}: is gone; {self._last_good} has its content" if gone else None
        try:
            found = self._parse(content)
        except InputError as error:
            return str(error)
        kept = None if self._lost is None else self._kept()
        if self._lost is None or kept is None:
            return None
        try:
            lost = self._lost(found, self._parse(kept))
        except InputError:  # the copy is the damaged one
            return None
        # What was written since `content` was read is in the copy, and no loss.
        return lost if self._stored() == content else None

    def _kept(self) -> bytes | None:
        return None if self._last_good is None else self._store.read(self._last_good)

    def _set_aside(self, content: bytes | None, problem: str) -> None:
        name = "nothing"
        if content is not None:
            path = PurePosixPath(self._key)
            stamp = datetime.now(UTC).strftime("%Y%m%d_%H%M%S_%f")
            aside = path.with_name(f"{path.stem}.damaged_{stamp}{path.suffix}")
            self._store.change(str(aside), lambda _: content)
            name = aside.name
        self._on_damage(name, problem)
