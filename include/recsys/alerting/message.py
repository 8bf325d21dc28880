"""What an alert says, before any channel gives it a form."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final

from recsys.alerting.masking import SecretMasker
from recsys.alerting.severity import Severity
from recsys.logs import fields

_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\u2028\u2029]+")
_LONGEST_VALUE: Final = 4000


@dataclass(frozen=True)
class Alert:
    """One thing that somebody has to know.

    Attributes
    ----------
    message
        English, for the log: ``avg_latency_ms=215.3 > 200``.
    text
        The same in the configured language, for mail and Slack; empty means `message`.
    headline
        Subject of the mail, in the configured language; empty means the alert's name.
    facts
        Details by name (``job``, ``run_id``, ...), in the order to show them.
    link
        Where to look: the page of the run.
    key
        What repeats are recognised by; empty means the name.
    until_resolved
        Tell it once, until `AlertManager.resolve`, in place of the cool-down.
    resolved
        This is the notice that the condition has cleared.
    """

    name: str
    message: str
    severity: Severity
    text: str = ""
    headline: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)
    link: str | None = None
    key: str = ""
    until_resolved: bool = False
    resolved: bool = False

    @property
    def identity(self) -> str:
        return self.key or self.name

    @property
    def line(self) -> str:
        """The alert as one line of the log."""
        verb = "resolved" if self.resolved else "triggered"
        return f"{self.name} {verb}: {self.message}" + (fields(**self.facts) if self.facts else "")

    def cleaned(self, masker: SecretMasker) -> "Alert":
        """The alert without secrets and control characters, and with values of sane length."""

        def clean(text: str) -> str:
            masked = _CONTROL.sub(" ", masker.mask(storable(text)))
            if len(masked) > _LONGEST_VALUE:
                return masked[: _LONGEST_VALUE - 1] + "…"
            return masked

        return replace(
            self,
            name=clean(self.name),
            message=clean(self.message),
            text=clean(self.text),
            headline=clean(self.headline),
            facts={clean(key): clean(value) for key, value in self.facts.items()},
            link=clean(self.link) if self.link else None,
        )

    def to_json(self) -> str:
        return json.dumps(self.__dict__ | {"facts": dict(self.facts)}, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> "Alert":
        content: dict[str, Any] = json.loads(text)
        return cls(**content | {"severity": Severity(content["severity"])})


def storable(text: object) -> str:
    """`text` with what UTF-8 cannot hold (half of a surrogate pair) as question marks."""
    return str(text).encode("utf-8", "replace").decode()


def facts_of(context: Mapping[str, Any] | None) -> dict[str, str]:
    """`context` as facts: values as text, times to the second, what is None left out."""
    return {
        str(key): value.isoformat(sep=" ", timespec="seconds")
        if isinstance(value, datetime)
        else str(value)
        for key, value in (context or {}).items()
        if value is not None
    }
