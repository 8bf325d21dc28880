"""The job ``forget_customers``: removes everything that is kept of customers who asked for it.

It may die at any moment: what it removed it does not find again, what it has to know for the rest
it has written down before, and a request is done only when nothing is found any more."""

import contextlib
import logging
import shutil
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, NamedTuple

from recsys.alerting import AlertManager, Severity
from recsys.alerting.message import Alert
from recsys.data.versions import VERSIONS_KEY
from recsys.errors import InputError
from recsys.locks import POLL_SECONDS, PipelineLock
from recsys.logs import fields
from recsys.models.model_types import MODEL_TYPES
from recsys.personal import Doubtful, Erased, Record, Sought, Unread, is_outside, place_of
from recsys.privacy import (
    FORGETTING_KEY,
    Register,
    Request,
    ToForget,
    ids_to_forget,
    load_forgotten,
)
from recsys.pseudonyms import PRIVACY_KEY
from recsys.publishing import is_temporary, leftovers
from recsys.registry import ARTIFACTS_KEY
from recsys.settings import Settings
from recsys.storage import open_store
from recsys.training.fits import fits_folder
from recsys.upkeep.backup import remove_unpacked
from recsys.upkeep.personal import (
    AREAS,
    PERSONAL,
    WHATEVER_ELSE,
    find,
    named_ids,
    not_searched,
    sought,
)

logger = logging.getLogger(__name__)

ALERT = "customers_not_forgotten"
UNKNOWN: Final = "nobody knows the id any more: ask again to forget the customer"
_BESIDE: Final = ("data_refresh", "model_training", "outcomes", "maintenance")
"""Jobs that would write down again what they read before it was removed."""
_UNASKED_HOURS: Final = 1
"""An id without a request is that of a command that died before it had opened one."""
_TOLD: Final = 20  # places of each kind in a proof and a summary
_STANDING_STILL: Final = tuple(
    f"data/{area}" for area in ("raw", "staging", "served", "outcomes", "quarantine")
)
"""Where only these jobs replace files, and this one."""


def forget_customers(settings: Settings) -> dict[str, Any]:
    """Remove what is kept of all who asked to be forgotten, look whether anything is left, and
    write into the register what went, or why a request stays open, which somebody is told.

    Also removes who was forgotten before and has come back since. Waits until no job runs that
    would write it down again. Returns ``{requests, forgotten, open, came_back, erased: {what:
    records}, left: [places], seconds}``. Raises `InputError` if the register or the ids to forget
    cannot be read."""
    started = time.monotonic()
    _drop_ids(settings)
    worked = _work_off(settings) if load_forgotten(settings) else _Worked({}, {})
    still_open = [proof for proof in worked.asked.values() if proof.left]
    left = {place for one in (worked.asked, worked.back) for p in one.values() for place in p.left}
    tell_of_forgetting(settings, len(still_open), sorted(left))
    erased = sum((Counter(proof.erased) for proof in worked.asked.values()), Counter[str]())
    return {
        "requests": len(worked.asked),
        "forgotten": len(worked.asked) - len(still_open),
        "open": len(still_open),
        "came_back": len(worked.back),
        "erased": dict(erased),
        "left": sorted(left)[:_TOLD],
        "seconds": round(time.monotonic() - started, 3),
    }


@dataclass
class Proof:
    """What became of a request: how many records of what were there before, and places: what is
    `left` keeps it open, `doubtful` ones have a word or number that may be the customer's id, and
    what is at `the_shops` the shop has to remove, and what is `not_searched` to look at."""

    erased: Mapping[str, int] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)
    doubtful: set[str] = field(default_factory=set)
    the_shops: set[str] = field(default_factory=set)
    not_searched: Sequence[str] = ()

    def told(self) -> dict[str, Any]:
        """As the register has it."""
        left = [{"place": at, "reason": why} for at, why in sorted(self.left.items())]
        return {
            "erased": dict(self.erased),
            "left": left[:_TOLD],
            "doubtful": sorted(self.doubtful)[:_TOLD],
            "the_shops": sorted(self.the_shops)[:_TOLD],
            "not_searched": self.not_searched[:_TOLD],
            "checked_at": datetime.now(UTC).isoformat(timespec="seconds"),
        }


class _Worked(NamedTuple):
    """The proofs by the numbers of requests: those that were open, and those that were done, whose
    customers had come back."""

    asked: dict[int, Proof]
    back: dict[int, Proof]


def _work_off(settings: Settings) -> _Worked:
    """Remove who asked and who came back, and write down what became of the requests."""
    register = Register(settings)
    waiting = [one.number for one in register.requests() if one.waits_to_forget]
    asked, back = _asked(settings), _came_back(settings)
    proofs: dict[int, Proof] = {}
    if everybody := asked | back:
        with _alone(settings):
            customers = _remembered(settings, list(everybody))
            moments = [one.asked_at for one in everybody.values()]
            unread = [*erase(settings, customers, moments), *_remove_old_objects(settings)]
            proofs = _look_again(settings, customers, everybody, unread)
    known = {request.number for request in asked.values()}
    told = {one: proofs[one] for one in known}
    told |= {one: Proof(left={FORGETTING_KEY: UNKNOWN}) for one in waiting if one not in known}
    for number, proof in told.items():
        note = register.report if proof.left else register.finish
        note([number], proof.told())
    _drop_ids(settings)
    try:
        open_store(settings).remove_old(PRIVACY_KEY, lambda key: key == FORGETTING_KEY)
    except OSError as error:  # requests that need it are open, and say so
        logger.error("Old versions of %s stay | reason=%s", FORGETTING_KEY, error)
    return _Worked(told, {one: proofs[one] for one in proofs.keys() - known})


def _asked(settings: Settings) -> dict[str, Request]:
    """The customers whose request waits, by their ids."""
    forgotten, asked = load_forgotten(settings), dict[str, Request]()
    for one in ids_to_forget(settings).read():
        request = forgotten.request(one)
        if request is not None and request.waits_to_forget:
            asked[one] = request
    return asked


def _came_back(settings: Settings) -> dict[str, Request]:
    """Customers whose request is done, and who stand somewhere again: in a file that the shop has
    put there since, in what another machine had read before. Its service has logged them by their
    pseudonyms, which are all that is known of them there."""
    forgotten, back, known = load_forgotten(settings), dict[str, Request](), set[str]()
    names = forgotten.by_name()
    for ids in named_ids(settings):
        known.update(ids)
    for one in known:
        request = names.get(one) or forgotten.request(one)
        if request is not None and not request.waits_to_forget:
            back[one] = request
    return back


def _drop_ids(settings: Settings) -> None:
    """Ids whose request is done are not needed any more."""
    forgotten, document = load_forgotten(settings), ids_to_forget(settings)
    long_ago = datetime.now(UTC) - timedelta(hours=_UNASKED_HOURS)

    def is_over(one: str, known: ToForget) -> bool:
        request = forgotten.request(one)
        if request is None:
            return known.noted_at < long_ago
        # Noted later, it is that of a command which is about to open another one.
        return request.done_at is not None and known.noted_at < request.done_at

    def drop(ids: dict[str, ToForget]) -> None:
        for one in [one for one, known in ids.items() if is_over(one, known)]:
            del ids[one]

    if any(is_over(one, known) for one, known in document.read().items()):
        document.change(drop)


@contextlib.contextmanager
def _alone(settings: Settings) -> Iterator[None]:
    """None of the jobs `_BESIDE` runs in the block, nor do their tasks begin."""
    waits = False
    while True:
        with contextlib.ExitStack() as held:
            locks = [held.enter_context(PipelineLock(job, settings)) for job in _BESIDE]
            if all(lock.acquired for lock in locks):
                yield
                return
            busy = [job for job, lock in zip(_BESIDE, locks, strict=True) if not lock.acquired]
        if not waits:
            logger.info("Waiting%s", fields(running=", ".join(busy)))
        waits = True
        time.sleep(POLL_SECONDS)


def _remembered(settings: Settings, ids: Sequence[str]) -> Sought:
    """The customers with all that the job cannot find out again once it has begun."""
    document = ids_to_forget(settings)
    known, customers = document.read(), sought(settings, ids)
    before = {at: one for one in ids if one in known for at in known[one].sessions}
    customers = replace(customers, sessions={**before, **customers.sessions})
    new = [one for one in ids if one in known and known[one].found is None]
    found: dict[str, Counter[str]] = {one: Counter() for one in new}
    for declared, one in find(settings, customers) if found else ():
        if isinstance(one, Record) and one.customer in found and one.place != FORGETTING_KEY:
            found[one.customer][declared.what] += 1

    def remember(noted: dict[str, ToForget]) -> None:
        for one in [one for one in ids if one in noted]:
            theirs = tuple(at for at, whose in customers.sessions.items() if whose == one)
            told = {"sessions": theirs, "found": found.get(one, noted[one].found)}
            noted[one] = noted[one].model_copy(update=told)

    document.change(remember)
    return customers


def erase(settings: Settings, customers: Sought, asked_at: Sequence[datetime]) -> Iterator[Unread]:
    """Remove everything of the customers, who asked at these moments, in the order in which it is
    made of each other; what cannot be changed. One place that fails leaves the others to be
    removed. No job may write meanwhile."""
    yield from _remove_scratch(settings, min(asked_at), max(asked_at))
    yield from _erase_declared(settings, customers)


def _erase_declared(settings: Settings, customers: Sought) -> Iterator[Unread]:
    for declared in PERSONAL:
        if declared.forget is None:
            continue
        began, records = time.monotonic(), 0
        try:
            for one in declared.forget(settings, customers):
                if isinstance(one, Unread):
                    yield one
                elif isinstance(one, Erased):
                    records += one.records
        except (InputError, OSError) as error:
            reason = customers.nameless(str(error))  # a traceback names files as they are
            logger.error("Not removed%s", fields(what=declared.what, reason=reason))
            yield Unread(declared.where[0], str(error))
        seconds = round(time.monotonic() - began, 1)
        logger.info("Removed%s", fields(what=declared.what, records=records, seconds=seconds))


def _remove_scratch(settings: Settings, first: datetime, last: datetime) -> Iterator[Unread]:
    """Remove what writers that died have left: where only the jobs write that stand still, all of
    it, elsewhere what is older than the last request. Fits are made again."""
    store, bundles = open_store(settings), _bundle_keys()
    remove_unpacked(settings.home)
    for key in bundles:
        store.remove_unfinished(key, first)
    ours = [settings.home / key for key in (*bundles, *_STANDING_STILL)]
    for root in (*ours, *(settings.home / area for area in AREAS)):
        for path in leftovers(root):
            with contextlib.suppress(FileNotFoundError):
                if root in ours or path.lstat().st_mtime < last.timestamp():
                    _remove(path)
    for path in fits_folder(settings).glob("*"):
        try:
            _remove(path)
        except OSError as error:
            yield Unread(place_of(settings, path), str(error))


def _bundle_keys() -> list[str]:
    """Where versions and models lie."""
    return [VERSIONS_KEY, *(f"{ARTIFACTS_KEY}/{one}" for one in MODEL_TYPES)]


def _remove_old_objects(settings: Settings) -> Iterator[Unread]:
    """A versioned bucket has what was replaced or removed long ago as well. Of versions and models
    all of that goes: what stands beside the customers' rows is made of them."""
    store, declared = open_store(settings), [one for one in PERSONAL if one.forget is not None]
    places = [one for one in declared if one is not WHATEVER_ELSE]
    bundles = tuple(f"{key}/" for key in _bundle_keys())

    def is_meant(key: str) -> bool:
        return key.startswith(bundles) or any(one.covers(key) for one in places)

    for area in AREAS:
        try:
            store.remove_old(area, is_meant)
        except OSError as error:
            yield Unread(area, str(error))


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _look_again(
    settings: Settings, customers: Sought, asked: Mapping[str, Request], unread: Iterable[Unread]
) -> dict[int, Proof]:
    """What there is still of the customers, by the numbers of their requests. What could not be
    read or changed may be anybody's."""
    noted = ids_to_forget(settings).read()
    counted = {who: noted[who].found if who in noted else None for who in asked}
    beside = [customers.nameless(one) for one in not_searched(settings)]
    proofs = {who: Proof(erased=found or {}, not_searched=beside) for who, found in counted.items()}
    # Writers that live are told of whom to leave out; what dead ones have left goes by its age.
    problems = [one for one in unread if not is_temporary(Path(one.place))]
    for _, one in find(settings, customers):
        if isinstance(one, Unread):
            problems += [one] if not is_temporary(Path(one.place)) else []
            continue
        proof, place = proofs[one.customer], customers.nameless(one.place)
        if isinstance(one, Doubtful):
            proof.doubtful.add(place)
        elif is_outside(settings, one.place):
            proof.the_shops.add(place)
        elif one.place != FORGETTING_KEY:
            proof.left[place] = "something of the customer is still there"
    for problem in problems:
        place = customers.nameless(problem.place)
        for proof in proofs.values():
            if is_outside(settings, problem.place):
                proof.the_shops.add(place)
            else:
                proof.left.setdefault(place, customers.nameless(problem.reason))
    return {asked[who].number: proof for who, proof in proofs.items()}


def tell_of_forgetting(settings: Settings, still_open: int, left: Sequence[str]) -> None:
    """Tell that requests are `still_open` because of what is `left`, or that none is."""
    manager = AlertManager(settings)
    if not still_open:
        manager.resolve(ALERT, "everybody who asked for it is forgotten")
        return
    facts = {"requests": str(still_open), "places": ", ".join(left[:_TOLD])}
    message = f"{still_open} customers are not forgotten yet: {facts['places']}"
    manager.deliver(Alert(ALERT, message, Severity.WARNING, facts=facts, until_resolved=True))
