"""What the drills have in common: attacks by kind, and whether each was survived."""

import contextlib
import sys
import threading
from collections import Counter
from collections.abc import Iterator


class Attacks:
    """Counts the attacks of one drill. Safe to use from several threads."""

    def __init__(self, drill: str) -> None:
        self._drill = drill
        self._tried: Counter[str] = Counter()
        self._survived: Counter[str] = Counter()
        self._failed = False
        self._counting = threading.Lock()

    @contextlib.contextmanager
    def attack(self, kind: str, what: object) -> Iterator[None]:
        """One attack; it was survived unless the block raises, which is told on stderr."""
        with self._counting:
            self._tried[kind] += 1
        with self.afterwards(f"{kind}: {what}") as survived:
            yield
        with self._counting:
            self._survived[kind] += bool(survived)

    @contextlib.contextmanager
    def afterwards(self, what: str) -> Iterator[list[bool]]:
        """Something that must hold, and is no attack of its own."""
        survived: list[bool] = []
        try:
            yield survived
            survived.append(True)
        except Exception as error:  # noqa: BLE001 - whatever it was, it got through
            self._failed = True
            place = error.__traceback__
            while place is not None and place.tb_next is not None:
                place = place.tb_next
            line = place.tb_lineno if place else 0
            said = f"{type(error).__name__}: {str(error)[:600]}"
            print(f"NOT SURVIVED | {what} | line {line} | {said}", file=sys.stderr, flush=True)

    def end(self) -> int:
        """Print the rows of docs/reliability.md; 1 if anything was not survived."""
        for kind, tried in self._tried.items():
            print(f"| {kind} | `{self._drill}` | {tried} | {self._survived[kind]} |")
        return int(self._failed)
