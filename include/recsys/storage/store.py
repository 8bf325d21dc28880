"""What every store offers."""

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Protocol

from recsys.errors import InputError

Change = Callable[[bytes | None], bytes]
"""From the content of a file (None when there is none) to its new content; may run repeatedly."""


ABANDONED_AFTER = timedelta(days=2)
"""Scratch folders and half-made versions of runs that died are removed after this time."""


class StorageError(OSError):
    """The store cannot be reached or refuses; the text names the address. Trying again may help."""


class DamagedError(InputError):
    """What the store holds is not what was put there; the text names the object."""


class Store(Protocol):
    """Folders that never change, pointers to them, and files that change as a whole.

    Keys are paths below the state root with ``/``. A folder is used in its place below the state
    root, whatever the store. No method relies on a lock that another machine would have to honour.
    """

    @property
    def shared(self) -> bool:
        """Whether the state lives elsewhere than in the state root."""

    def check(self) -> None:
        """Try what all else relies on.

        Raises `StorageError` if the store cannot be reached, `InputError` if it does not keep what
        it promises.
        """

    # folders
    def publish(self, key: str) -> None:
        """Make the finished folder at `key` of the state root known to all machines.

        Can be repeated. Raises `FileExistsError` if the store has another folder of this key.
        """

    def fetch(self, key: str) -> Path:
        """The folder `key` in the state root, copied there first if need be: all of it, or nothing.

        Raises `FileNotFoundError` if the store does not have it, `DamagedError` if a file is not
        what was published.
        """

    def names(self, prefix: str) -> list[str]:
        """Names of the complete folders right below `prefix`, sorted."""

    def read_file(self, key: str, name: str) -> bytes:
        """One file of the folder `key`, without fetching the rest. Raises `FileNotFoundError`."""

    def remove(self, key: str) -> bool:
        """Remove the folder `key`, unless a process of this machine reads it; whether it is gone.

        Nobody finds the folder any more before the first of its files goes. A reader on another
        machine has its own copy, or looks up the pointer again.
        """

    def remove_unfinished(self, prefix: str, before: datetime) -> list[str]:
        """Remove what died in being published below `prefix` before that moment; what it was."""

    # pointers
    def leads_to(self, pointer: str) -> str | None:
        """Name of the folder that the pointer leads to, None while it leads nowhere."""

    def follow(self, pointer: str, key: str) -> None:
        """Let the link `pointer` of the state root lead to the fetched folder `key` as well."""

    def point(self, pointer: str, key: str, may_replace: Callable[[str | None], bool]) -> bool:
        """Let `pointer` lead to `key`, if `may_replace` agrees to what it leads to at that moment.

        Two machines cannot undo each other's move: the one that is later is asked again. Returns
        whether the pointer leads to `key` now.
        """

    # files
    def read(self, key: str) -> bytes | None:
        """The content of a file, None when there is none."""

    def change(self, key: str, change: Change) -> bytes:
        """Replace a file by what `change` makes of its content; no other change is lost.

        Returns the new content. What `change` raises leaves the file as it was.
        """

    # files that come in once and are not changed
    def share(self, key: str) -> None:
        """Make the file at `key` of the state root, of a name of its own, known to all machines."""

    def mirror(self, prefix: str, into: str) -> None:
        """Copy files below `prefix` that are new or newer in the store to below `into` here."""

    def files(self, prefix: str) -> set[str]:
        """Paths of the shared files below `prefix`, relative to it."""

    def discard(self, key: str) -> None:
        """Take a shared file away from all machines; copies in state roots stay."""

    def discard_older(self, prefix: str, before: datetime) -> None:
        """`discard` every file below `prefix` that was shared before that moment."""
