"""``python -m recsys customer``: what is kept of a customer, told to whom it concerns."""

import contextlib
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Final

from recsys.data.sources import id_rules
from recsys.errors import InputError
from recsys.logs import fields, file_logger
from recsys.personal import Doubtful, PersonalData, Record, Unread
from recsys.privacy import AUDIT_KEY, Kind, Register, checked_ids, told
from recsys.pseudonyms import load_pseudonyms
from recsys.schedule import load_zone
from recsys.settings import Settings
from recsys.upkeep.personal import find, sought

MOST_CUSTOMERS: Final = 500
"""So many at once: a file is open for each."""


def export_customers(
    settings: Settings, given: Sequence[str], folder: Path | None, *, asked_by: str, to: IO[str]
) -> dict[str, Any]:
    """Write all that is kept of the customers `given` as JSON: of one to `to`, of several a file
    each to `folder`, named by their pseudonyms. Each place is read once; what is found is written
    at once; `folder` is made. Places where it takes a person to tell whether a number is a customer
    are named in ``doubtful``, without what stands there. The request goes to the register. Returns
    ``{customers: {id: file}, records, unread, doubtful}``.

    Raises `InputError` as `checked_ids`, or if the folder is a file or has something in it."""
    ids = checked_ids(given, asked_by, id_rules(settings))
    _require_place(ids, folder)
    register, names = Register(settings), load_pseudonyms(settings)
    opened = register.open(Kind.EXPORT, ids, asked_by)
    customers = sought(settings, ids)
    files = {} if folder is None else {one: folder / f"{names.of(one)[1:]}.json" for one in ids}
    with contextlib.ExitStack() as stack:
        outputs = {one: stack.enter_context(_private(path)) for one, path in files.items()}
        documents = {one: _Document(outputs.get(one, to), settings, one) for one in ids}
        for declared, found in find(settings, customers):
            if isinstance(found, Unread):
                for document in documents.values():
                    document.unread.append(found._asdict())
            elif isinstance(found, Doubtful):
                documents[found.customer].doubtful.add(found.place)
            else:
                documents[found.customer].add(declared, found)
        for one, document in documents.items():
            document.end([told(entry) for entry in register.requests(one)])
    counts = {one: document.records for one, document in documents.items()}
    audit = file_logger("customers", settings.home / AUDIT_KEY, load_zone(settings))
    for one, request in zip(ids, opened, strict=True):
        register.finish([request.number], {"records": counts[one]})
        about = fields(customer=request.pseudonym, by=asked_by, records=counts[one])
        audit.info("exported%s", about)
    unread = len(next(iter(documents.values())).unread)
    written = {one: str(path) for one, path in files.items()}
    doubtful = sum(len(document.doubtful) for document in documents.values())
    records = sum(counts.values())
    return {"customers": written, "records": records, "unread": unread, "doubtful": doubtful}


class _Document:
    """One customer's export, written as it is found."""

    def __init__(self, file: IO[str], settings: Settings, customer: str) -> None:
        self._file, self._settings = file, settings
        self._declared: PersonalData | None = None
        self.unread: list[dict[str, str]] = []
        self.doubtful: set[str] = set()
        self.records = 0
        about = {
            "customer": customer,
            "exported_at": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        self._write(f'{json.dumps(about, ensure_ascii=False)[:-1]}, "kept": [')

    def add(self, declared: PersonalData, found: Record) -> None:
        """Add what was found, which comes in the order of the declarations."""
        if declared is not self._declared:
            self._write("" if self._declared is None else "\n]},")
            about = {
                "what": declared.what,
                "why": declared.why,
                "until": declared.kept_in(self._settings),
            }
            self._write(f'\n{json.dumps(about, ensure_ascii=False)[:-1]}, "records": [\n')
        else:
            self._write(",\n")
        self._declared = declared
        record = {"place": found.place, **found.content}
        self._write(json.dumps(record, ensure_ascii=False, allow_nan=False))
        self.records += 1

    def end(self, requests: list[dict[str, Any]]) -> None:
        """What cannot be read might have something, and is named."""
        self._write("\n]}" if self._declared else "")
        rest = {
            "records": self.records,
            "requests": requests,
            "not_read": self.unread,
            "doubtful": sorted(self.doubtful),
        }
        self._write(f"\n], {json.dumps(rest, ensure_ascii=False)[1:]}\n")

    def _write(self, text: str) -> None:
        # Lone surrogates came from files that are no UTF-8.
        self._file.write(text.encode("utf-8", "replace").decode())


def _require_place(ids: Sequence[str], folder: Path | None) -> None:
    if not 1 <= len(ids) <= MOST_CUSTOMERS:
        raise InputError(f"expected 1 to {MOST_CUSTOMERS} customers, got {len(ids)}")
    if folder is None and len(ids) > 1:
        raise InputError("--to: expected a folder for several customers: each gets a file")
    if folder is not None:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise InputError(f"{folder}: expected an empty folder, or none: it is made")
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)


def _private(path: Path) -> IO[str]:
    """A new file that nobody else on this machine may read."""
    path.touch(mode=0o600, exist_ok=False)
    return path.open("w", encoding="utf-8")
