"""What an alert says and in which words, before any channel gives it a form."""

import json
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, tzinfo
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, Literal

from recsys.alerting.masking import SecretMasker
from recsys.errors import InputError
from recsys.language import Language
from recsys.logs import fields
from recsys.publishing import storable
from recsys.sentences import tell

LanguageCode = Literal["vi", "en"]

WAIT_SECONDS: Final = 10.0
"""Longest wait for a server in one step."""
DEADLINE_SECONDS: Final = 30.0
"""Longest wait for it in all: a server can send a byte in every step, for ever."""

_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\u2028\u2029]+")
_LONGEST_VALUE: Final = 4000
_SENTENCES: Final = ("reason", "advice")  # facts that are for people


class Severity(StrEnum):
    """How soon somebody has to look; ordered by `rank`."""

    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"

    @property
    def rank(self) -> int:
        return tuple(Severity).index(self)


class Channel(StrEnum):
    LOG = "log"
    EMAIL = "email"
    SLACK = "slack"


DEFAULT_CHANNELS: Final = {one: tuple(Channel)[: one.rank + 1] for one in Severity}
"""Information goes to the log, a warning to a mail as well, and what is critical also to Slack."""


def parse_severity(value: str) -> Severity:
    """`value` as a severity. Raises `InputError` with the known ones."""
    if value not in list(Severity):
        raise InputError(f"severity {value!r} is unknown; expected one of {', '.join(Severity)}")
    return Severity(value)


def parse_channels(values: object) -> tuple[Channel, ...]:
    """A list of channel names, without repeats. Raises `InputError` with the known ones."""
    known = list(Channel)
    if not isinstance(values, list | tuple) or not values or any(v not in known for v in values):
        expected = f"expected a list of at least one of {', '.join(known)}"
        raise InputError(f"channels {values!r}: {expected}")
    return tuple(dict.fromkeys(map(Channel, values)))


@dataclass(frozen=True)
class Alert:
    """One thing that somebody has to know.

    `message` is English, for the log (``avg_latency_ms=215.3 > 200``). `text` and `headline` are
    what `Texts` calls the words that say the same to people (empty: those of the alert's kind);
    their blanks hold `facts` and `blanks`. `facts` are details by name, in the order to show them,
    and `blanks` are not shown besides; `link` is where to look. Repeats are recognised by
    `key` (empty: the name). `until_resolved` tells it once until `AlertManager.resolve`, in place
    of the cool-down; a `condition` lasts until then, too, and is told again after it; `event` is
    what has happened and is never over, so that nobody resolves it; `resolved` is the notice that
    something is over."""

    name: str
    message: str
    severity: Severity
    text: str = ""
    headline: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)
    blanks: Mapping[str, str] = field(default_factory=dict)
    link: str | None = None
    key: str = ""
    until_resolved: bool = False
    condition: bool = False
    event: bool = False
    resolved: bool = False

    @property
    def identity(self) -> str:
        return self.key or self.name

    @property
    def lasts(self) -> bool:
        """Whether somebody tells when it is over."""
        return (self.until_resolved or self.condition) and not self.event

    @property
    def body(self) -> str:
        """What mail and Slack say below the headline; never empty, which Slack refuses."""
        said = (_CONTROL.sub(" ", one).strip() for one in (self.text, self.message))
        return next(filter(None, said), "-")

    @property
    def line(self) -> str:
        """The alert as one line of the log."""
        verb = "resolved" if self.resolved else "triggered"
        # A cause that ends the message is not said twice.
        said = [k for k in ("error", "reason") if self.message.endswith(self.facts.get(k, "\0"))]
        facts = {name: value for name, value in self.facts.items() if name not in said}
        return f"{self.name} {verb}: {self.message}" + (fields(**facts) if facts else "")

    def cleaned(self, masker: SecretMasker) -> "Alert":
        """The alert without secrets and control characters, and with values of sane length."""

        def clean(text: str) -> str:
            return cut(_CONTROL.sub(" ", masker.mask(storable(text))), _LONGEST_VALUE)

        texts: dict[str, Any] = {
            name: clean(getattr(self, name)) for name in ("name", "message", "text", "headline")
        }
        for name in ("facts", "blanks"):
            details: Mapping[str, str] = getattr(self, name)
            texts[name] = {clean(key): clean(value) for key, value in details.items()}
        return replace(self, **texts, link=clean(self.link) if self.link else None)

    def to_json(self) -> str:
        details = {"facts": dict(self.facts), "blanks": dict(self.blanks)}
        return json.dumps(self.__dict__ | details, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> "Alert":
        content: dict[str, Any] = json.loads(text)
        return cls(**content | {"severity": Severity(content["severity"])})


def cut(text: str, longest: int) -> str:
    """`text` with at most `longest` characters."""
    return text if len(text) <= longest else text[: longest - 1] + "…"


def facts_of(context: Mapping[str, Any] | None) -> dict[str, str]:
    """`context` as facts: values as text, times to the second, of a mapping each of its values, a
    list with commas, what is None left out."""
    facts: dict[str, str] = {}
    for key, value in (context or {}).items():
        if isinstance(value, Mapping):
            facts |= {f"{key}.{inner}": text for inner, text in facts_of(value).items()}
        elif isinstance(value, datetime):
            facts[str(key)] = value.isoformat(sep=" ", timespec="seconds")
        elif value is not None:
            several = isinstance(value, list | tuple | set)
            facts[str(key)] = ", ".join(map(str, value)) if several else str(value)
    return facts


class DeliveryError(Exception):
    """The channel was tried and did not take the alert."""


class Texts:
    """The texts of one language, with times in `zone`, and what each kind of alert means for the
    shop and which page of docs/ helps with it."""

    def __init__(self, language: str, zone: tzinfo) -> None:
        self.language = language
        self._form = Language(language, zone, {})
        path = Path(__file__).parent / "templates" / "texts.json"
        content: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        self._texts: Mapping[str, str] = content[language]
        self._alerts: Mapping[str, str] = content["alerts"][language]
        self._pages: Mapping[str, str] = content["pages"]
        self._effects = {kind: text[language] for kind, text in content["effects"].items()}

    def say(self, text: str, **values: object) -> str:
        """The text called `text`, with its blanks filled in."""
        return self._texts[text].format(**values)

    def worded(self, alert: Alert) -> Alert:
        """`alert` with text and headline in this language, their blanks filled in. The text ends
        with what it means for the shop."""
        kind = f"{alert.name}.resolved" if alert.resolved else alert.name
        blanks = defaultdict(lambda: "?", {**alert.facts, **alert.blanks})

        def words(own: str, of_kind: str) -> str:
            if own and own not in self._texts:  # of an alert that an earlier release has stored
                return own
            return (self._texts[own] if own else self._alerts.get(of_kind, "")).format_map(blanks)

        text, headline = words(alert.text, kind), words(alert.headline, f"{kind}.headline")
        text = text or self._told(alert.message)
        effects = (said for kind, said in self._effects.items() if re.search(kind, alert.name))
        if not alert.resolved and (effect := next(effects, None)):
            text = f"{text}\n\n{self.say('effect', effect=effect)}"
        return replace(alert, text=text, headline=headline or self.say("alert", name=alert.name))

    def around(self, alert: Alert, at: datetime) -> dict[str, str]:
        """``severity``, ``footer`` and ``open_link`` of `alert`; `at` is local."""
        return {
            "severity": self.say("resolved" if alert.resolved else alert.severity),
            "footer": self.say("footer", time=at.strftime("%Y-%m-%d %H:%M:%S %Z")),
            "open_link": self.say("open_link"),
        }

    def facts(self, alert: Alert) -> list[tuple[str, str]]:
        """The alert's facts, and where to read what to do; those without a translation go by their
        own name. An error stays as the logs have it."""
        page = next(page for kind, page in self._pages.items() if re.search(kind, alert.name))
        facts = {**alert.facts, "runbook": page}
        facts |= {name: self._told(facts[name]) for name in _SENTENCES if name in facts}
        return [(self._texts.get(name, name), value) for name, value in facts.items()]

    def _told(self, said: str) -> str:
        return "".join(one.text for one in tell(said, self._form))
