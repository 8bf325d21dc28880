"""What holds for customers' rights on every machine: the register of what was asked for, which
names customers by their pseudonyms alone, and who is forgotten by it. It is in the store, so that
machines which share it agree, beside the keys of pseudonyms."""

import functools
import json
import logging
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pydantic import AwareDatetime, Field, TypeAdapter, ValidationError

from recsys.config import ConfigModel, load_config, parse_json
from recsys.errors import InputError
from recsys.ids import MAX_LENGTH, IdRules, normalise_id
from recsys.logs import fields, file_logger
from recsys.personal import PSEUDONYM
from recsys.pseudonyms import (
    LAST_GOOD_REQUESTS_KEY,
    PRIVACY_KEY,
    REQUESTS_KEY,
    Pseudonyms,
    adopt_keys,
    keep_private,
    load_pseudonyms,
    place_of_keys,
)
from recsys.schedule import load_zone
from recsys.settings import Settings
from recsys.storage import Document, open_store

if TYPE_CHECKING:
    import pyarrow as pa

logger = logging.getLogger(__name__)

FORGETTING_KEY: Final = f"{PRIVACY_KEY}/forgetting.json"
AUDIT_KEY: Final = "logs/customer_audit.log"

MOST_OF_A_NAME: Final = 64
NOT_IN_NAMES: Final = r"[\x00-\x1f\x7f-\x9f\u2028\u2029|]"
"""What nobody's name has who asks: in the log of the register `|` begins the fields of a line."""
ASKED_BY: Final = rf"^[^{NOT_IN_NAMES[1:]}+$"


class PrivacyConfig(ConfigModel):
    """``config/privacy.yaml``; every key is explained there."""

    FILE = "privacy.yaml"

    pseudonymous_logs: bool | None = None
    answer_days: float = Field(default=3, gt=0)
    see_customers: tuple[str, ...] = ("admin",)


class Kind(StrEnum):
    """What a customer may ask for."""

    EXPORT = "export"
    FORGET = "forget"
    READMIT = "readmit"


class Request(ConfigModel):
    """Something that was asked for on behalf of a customer, by whom, until when it has to be done,
    when it was, and what proves that."""

    number: int
    kind: Kind
    pseudonym: str
    key: str = ""
    """The fingerprint of the key that made the pseudonym; empty in registers of before."""
    asked_at: AwareDatetime
    asked_by: str
    due_at: AwareDatetime
    done_at: AwareDatetime | None = None
    proof: dict[str, Any] = Field(default_factory=dict)

    @property
    def waits_to_forget(self) -> bool:
        """Whether the job `forget_customers` has it before it."""
        return self.kind is Kind.FORGET and self.done_at is None


def told(request: Request) -> dict[str, Any]:
    """A request as commands and routes show it."""
    shown = request.model_dump(mode="json", exclude={"key"})
    return {key: value for key, value in shown.items() if value}


class ToForget(ConfigModel):
    """What the job needs to know of a customer until it is done: when the id was noted, and, from
    its first try on, what it will not find again: the sessions in which nobody else was logged in,
    and how many records of which kind there were."""

    noted_at: AwareDatetime
    sessions: tuple[str, ...] = ()
    found: dict[str, int] | None = None


class Register:
    """All requests of the installation, oldest first. Raises `InputError` if the file is damaged or
    names customers by keys that are not there, `OSError` if it cannot be read or written."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._document = _document_of_requests(settings)
        self._names = _names_in(settings, self._document.read())

    def requests(self, user_id: str | None = None) -> list[Request]:
        """All, or those of one customer."""
        mine = None if user_id is None else self._names.all_of(user_id)
        return [one for one in self._document.read() if mine is None or one.pseudonym in mine]

    def open(self, kind: Kind, user_ids: Sequence[str], asked_by: str) -> list[Request]:
        """Note that something was asked for on behalf of each of the customers. Where a request to
        forget somebody is open already, there is no second one."""
        now = datetime.now(UTC)
        due = now + timedelta(days=load_config(self._settings, PrivacyConfig).answer_days)
        about: dict[str, Any] = {"kind": kind, "asked_at": now, "due_at": due}
        about |= {"asked_by": asked_by, "key": self._names.fingerprints[0]}

        def add(requests: list[Request]) -> list[Request]:
            forgotten = Forgotten(requests, self._names)
            opened = []
            for user in user_ids:
                one = forgotten.request(user) if kind is Kind.FORGET else None
                if one is None or one.done_at is not None:
                    name, number = self._names.of(user), _next_number(requests)
                    one = Request(number=number, pseudonym=name, **about)
                    requests.append(one)
                opened.append(one)
            return opened

        keep_private(self._settings.home)
        return self._document.change(add)

    def finish(self, numbers: Sequence[int], proof: dict[str, Any]) -> None:
        """Note that it was done, of those of which nobody noted it before."""
        self._note(numbers, {"done_at": datetime.now(UTC), "proof": proof})

    def report(self, numbers: Sequence[int], proof: dict[str, Any]) -> None:
        """Note how far requests are that stay open."""
        self._note(numbers, {"proof": proof})

    def _note(self, numbers: Sequence[int], told: dict[str, Any]) -> None:
        def note(requests: list[Request]) -> None:
            for at, one in enumerate(requests):
                if one.number in numbers and one.done_at is None:
                    requests[at] = one.model_copy(update=told)

        self._document.change(note)

    def adopt(self, others: Iterable[Request]) -> None:
        """Take over requests that another copy of this register has, and this one lacks, or has
        open still. They are numbered anew, by their times, if numbers were given twice."""

        def add(requests: list[Request]) -> None:
            known = {_identity(one): one for one in requests}
            for one in others:
                if known.setdefault(_identity(one), one).done_at is None:
                    known[_identity(one)] = one
            merged = sorted(known.values(), key=lambda one: (one.asked_at, one.number))
            numbers = [one.number for one in merged]
            if numbers != sorted(set(numbers)):
                pairs = enumerate(merged, 1)
                merged = [one.model_copy(update={"number": at}) for at, one in pairs]
            requests[:] = merged

        keep_private(self._settings.home)
        self._document.change(add)

    def readmit(self, user_ids: Sequence[str], asked_by: str) -> list[Request]:
        """Note that customers are not to be left out any more; what waited to forget them is
        closed. Raises `InputError`, and notes nothing, if one of them is not forgotten."""
        now = datetime.now(UTC)
        about: dict[str, Any] = {"kind": Kind.READMIT, "asked_by": asked_by}
        about["key"] = self._names.fingerprints[0]
        about |= dict.fromkeys(("asked_at", "due_at", "done_at"), now)

        def add(requests: list[Request]) -> list[Request]:
            forgotten = Forgotten(requests, self._names)
            opened = []
            for user in user_ids:
                if user not in forgotten:
                    raise InputError(f"{user!r}: is not forgotten, so there is nothing to lift")
                names, number = self._names.all_of(user), _next_number(requests)
                done = {"done_at": now, "proof": {"readmitted_by": number}}
                for at, waiting in enumerate(requests):
                    if waiting.waits_to_forget and waiting.pseudonym in names:
                        requests[at] = waiting.model_copy(update=done)
                one = Request(number=number, pseudonym=names[0], **about)
                requests.append(one)
                opened.append(one)
            return opened

        return self._document.change(add)


class Forgotten:
    """The customers who are forgotten, by the newest request of each: from the moment they asked,
    whatever comes of them is left out. `requests` are those of the register, oldest first."""

    def __init__(self, requests: Iterable[Request], names: Pseudonyms) -> None:
        self._names = names
        self._newest = {one.pseudonym: one for one in requests if one.kind is not Kind.EXPORT}
        self._count = sum(one.kind is Kind.FORGET for one in self._newest.values())

    def __len__(self) -> int:
        """How many there are."""
        return self._count

    def __contains__(self, user_id: str | int) -> bool:
        return self.request(user_id) is not None

    def by_name(self) -> dict[str, Request]:
        """Their pseudonyms, each with the request by which somebody of that name is forgotten."""
        return {name: one for name, one in self._newest.items() if one.kind is Kind.FORGET}

    def request(self, user_id: str | int) -> Request | None:
        """The request by which somebody is forgotten, None for others."""
        if not self._count:
            return None
        known = self._newest
        found = [known[name] for name in self._names.all_of(user_id) if name in known]
        if not found:
            return None
        newest = max(found, key=lambda one: one.number)
        return newest if newest.kind is Kind.FORGET else None

    def mask(self, column: "pa.ChunkedArray") -> "pa.ChunkedArray":
        """Which of the ids (large_string, in whatever spelling) are of somebody forgotten: each
        distinct id is looked up once."""
        from recsys.columns import which_are  # the service carries no Arrow

        return which_are(column, self.__contains__)


def adopt_privacy(settings: Settings, other: Settings) -> None:
    """Take over from another copy of this installation the keys, requests and ids to forget that it
    has and this one lacks. Raises `InputError` if one of them is damaged, or the other copy has
    requests without the key that they are named by."""
    requests, _ = read_requests(other)
    if not requests:
        return
    _names_in(other, requests)  # it has their keys
    adopt_keys(settings, other)
    Register(settings).adopt(requests)
    ids = ids_to_forget(other).read()
    ids_to_forget(settings).change(lambda known: known.update(ids))


def read_requests(settings: Settings) -> tuple[list[Request], str | None]:
    """All requests, oldest first, and what is wrong with the register: then they are those of its
    last good copy. Raises `InputError` if there is no such copy, `OSError` if it cannot be read."""
    document = _document_of_requests(settings)
    return document.read(), document.problem()


def overdue(requests: Iterable[Request], now: datetime) -> list[Request]:
    """Those that should have been done before `now`. What was asked for again, and done then, is
    due no more."""
    late: dict[tuple[str, Kind], Request] = {}
    for one in requests:
        key = (one.pseudonym, one.kind)
        if one.done_at is not None:
            late.pop(key, None)
        elif one.due_at < now:
            late.setdefault(key, one)
    return list(late.values())


def load_forgotten(settings: Settings) -> Forgotten:
    """Who is forgotten at this moment. Raises as `read_requests` and `forgotten_by`."""
    return forgotten_by(settings, read_requests(settings)[0])


def forgotten_by(settings: Settings, requests: Sequence[Request]) -> Forgotten:
    """Who is forgotten by all `requests` of the register; where nobody is, no keys are needed.
    Raises `InputError` if the keys are damaged or not those of the register, `OSError` if they
    cannot be read."""
    nobody = not any(one.kind is Kind.FORGET for one in requests)
    return Forgotten(requests, Pseudonyms(()) if nobody else _names_in(settings, requests))


def _names_in(settings: Settings, requests: Sequence[Request]) -> Pseudonyms:
    """The names of this installation. Raises `InputError` if `requests`, read before the keys are,
    name somebody by others: to those everybody would be a stranger."""
    names = load_pseudonyms(settings)
    lacking = {one.key for one in requests} - {"", *names.fingerprints}
    if lacking:
        count = sum(one.key in lacking for one in requests)
        raise InputError(
            f"{place_of_keys(settings)}: {count} requests of the register name customers by a key "
            "that is not there: put it behind the newest one, such as those of keys.json in the "
            "variable"
        )
    return names


def checked_ids(user_ids: Iterable[str | int], asked_by: str, rules: IdRules) -> list[str]:
    """The ids of a request in the one spelling, each once. Raises `InputError` for what is no id of
    one customer by `rules`, for a pseudonym, which would lead to what is kept of another, and for
    what cannot be written down as who asked."""
    if len(asked_by) > MOST_OF_A_NAME or not re.fullmatch(ASKED_BY, asked_by):
        said = f"expected 1 to {MOST_OF_A_NAME} characters, neither '|' nor control characters"
        raise InputError(f"--by {asked_by[:MOST_OF_A_NAME]!r}: {said}")
    ids = list(dict.fromkeys(map(normalise_id, user_ids)))
    for one in ids:
        fault = rules.user_fault(one)
        if fault is None and PSEUDONYM.fullmatch(one):
            fault = "is a pseudonym; give the id, as the shop writes it"
        if fault:
            raise InputError(f"{one[:MAX_LENGTH]!r}: {fault}")
    return ids


def ask_to_forget(
    settings: Settings, user_ids: Iterable[str | int], asked_by: str, rules: IdRules
) -> list[Request]:
    """Open a request to forget each of the customers, who are left out of everything from now on;
    the job ``forget_customers`` removes what is kept of them, for which it is told their ids. Asked
    again, the open request stays. Raises `InputError`, and opens none, for what is no id of
    one customer by `rules`, `OSError` if nothing can be written: asking again is safe."""
    ids = checked_ids(user_ids, asked_by, rules)
    now = datetime.now(UTC)
    keep_private(settings.home)
    register = Register(settings)
    # A request whose id nobody knows could not be done; an id without a request is removed.
    ids_to_forget(settings).change(
        lambda known: known.update({one: _noted(known.get(one), now) for one in ids})
    )
    requests = register.open(Kind.FORGET, ids, asked_by)
    _note(settings, "asked to forget", requests)
    return requests


def readmit(
    settings: Settings, user_ids: Iterable[str | int], asked_by: str, rules: IdRules
) -> list[Request]:
    """Leave customers who were forgotten out no longer; what was removed does not come back. Raises
    as `ask_to_forget`, and `InputError` if somebody is not forgotten."""
    ids = checked_ids(user_ids, asked_by, rules)
    requests = Register(settings).readmit(ids, asked_by)
    ids_to_forget(settings).change(lambda known: [known.pop(one, None) for one in ids])
    _note(settings, "readmitted", requests)
    return requests


def ids_to_forget(settings: Settings) -> Document[dict[str, ToForget]]:
    """The customers whom the job has before it, by the ids that the register does not have."""
    return Document(
        open_store(settings),
        FORGETTING_KEY,
        parse=functools.partial(_noted_ids, settings.home / FORGETTING_KEY),
        dump=lambda known: _IDS.dump_json({"ids": known}, indent=1) + b"\n",
        on_damage=functools.partial(
            logger.error,
            "The ids of those who are to be forgotten are damaged: ask again | set_aside=%s, %s",
        ),
    )


def _note(settings: Settings, what: str, requests: Sequence[Request]) -> None:
    audit = file_logger("customers", settings.home / AUDIT_KEY, load_zone(settings))
    for one in requests:
        about = fields(customer=one.pseudonym, by=one.asked_by, request=one.number)
        audit.info("%s%s", what, about)


_IDS: Final = TypeAdapter(dict[str, dict[str, ToForget]])


def _noted(before: ToForget | None, now: datetime) -> ToForget:
    return (before or ToForget(noted_at=now)).model_copy(update={"noted_at": now})


def _noted_ids(path: Path, content: bytes | None) -> dict[str, ToForget]:
    try:
        return {} if content is None else _IDS.validate_json(content)["ids"]
    except (ValueError, KeyError) as error:
        raise InputError(f"{path}: expected the ids of customers: ask again: {error}") from error


_REQUESTS: Final = TypeAdapter(list[Request])


def _next_number(requests: Sequence[Request]) -> int:
    return 1 + (requests[-1].number if requests else 0)


def _document_of_requests(settings: Settings) -> Document[list[Request]]:
    return Document(
        open_store(settings),
        REQUESTS_KEY,
        parse=functools.partial(_requests, settings.home / REQUESTS_KEY),
        dump=lambda found: _dumped([one.model_dump(mode="json") for one in found]),
        on_damage=functools.partial(
            logger.error, "The register of requests is damaged | set_aside=%s, %s"
        ),
        last_good=LAST_GOOD_REQUESTS_KEY,
        lost=_lost,
    )


def lost_requests(now: Iterable[Request], before: Iterable[Request]) -> int:
    """How many of the requests of before there are no more: a register never shrinks."""
    return len({_identity(one) for one in before} - {_identity(one) for one in now})


def _lost(now: list[Request], before: list[Request]) -> str | None:
    count = lost_requests(now, before)
    lacks = f"{REQUESTS_KEY}: lacks {count} requests that {LAST_GOOD_REQUESTS_KEY} has"
    return lacks if count else None


def _identity(one: Request) -> tuple[Kind, str, datetime]:
    return one.kind, one.pseudonym, one.asked_at


def _requests(path: Path, content: bytes | None) -> list[Request]:
    try:
        return [] if content is None else _REQUESTS.validate_python(parse_json(content)["requests"])
    except (ValueError, KeyError, TypeError, ValidationError) as error:
        raise InputError(f"{path}: is no register of customers' requests: {error}") from error


def _dumped(requests: list[dict[str, Any]]) -> bytes:
    text = json.dumps({"requests": requests}, ensure_ascii=False, indent=1, allow_nan=False)
    return f"{text}\n".encode()
