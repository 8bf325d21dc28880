"""Secrets out of every text before it is logged, stored or sent."""

import base64
import re
from collections.abc import Iterable, Mapping
from typing import Final
from urllib.parse import quote

MASK: Final = "***"
_SHORTEST_SECRET: Final = 4
_SHORTEST_UNASKED: Final = 8  # of variables that may hold secrets: "admin" must stay readable
_SECRET_NAME: Final = re.compile(
    r"^AIRFLOW_CONN_|(PASSWORD|PASSWD|SECRET|TOKEN|WEBHOOK_URL|_KEY|_KEY_ID|_CONN|_DSN)$"
)
# Secrets that are known by their shape, wherever they come from, and what is put in their place.
_SHAPES: Final = (
    # A private key, also one that was cut off.
    (r"(?s)-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*-----|\Z)", MASK),
    # user:password@ in a URL. A password may hold any of / ? # @; a port is none. Bounded, so that
    # a text made of beginnings of URLs costs no more than its length.
    (r"(?<=://)([^\s/?#@\"'<>]{0,99}:(?!\d{1,5}[/?#])[^\s\"'<>]{0,200}|[^\s/@]+)@", f"{MASK}@"),
    (r"\beyJ[\w-]{5,}(\.[\w-]{2,}){1,2}", MASK),  # a JSON web token
    (r"\bA(KIA|SIA|GPA|IDA|ROA|NPA|NVA|BIA|CCA)[A-Z0-9]{16}\b", MASK),  # an AWS key id
    (r"(?i)(https?://hooks\.slack\.com/)[^\s\"'<>|)]+", rf"\1{MASK}"),
    (r"(?i)\b(authorization[\"']?\s*[:=]\s*[\"']?[\w-]+)\s+[^\s\"',;]+", rf"\1 {MASK}"),
    (r"(?i)\b(bearer)\s+[\w.~+/=-]{8,}", rf"\1 {MASK}"),
    # "the token is unknown" is prose.
    (r"(?i)\b(token)\s+(?=\S*\d)[\w.~+/=-]{8,}", rf"\1 {MASK}"),
    (
        r"(?i)\b([\w-]*(?:password|passwd|pwd|passphrase|secret|token|signature"
        r"|(?:api|access|private|secret)[_-]?key(?:[_-]?id)?))([\"']?\s*[=:]\s*)"
        r"(?!\*\*\*)(\"[^\"]*\"|'[^']*'|[^\s,;&]+)",
        rf"\1\2{MASK}",
    ),
)


class SecretMasker:
    """Replaces known secrets, in the spellings they travel in, and what looks like one."""

    def __init__(self, secrets: Iterable[str]) -> None:
        spellings = {form for secret in secrets for form in _spellings(secret)}
        ordered = sorted(spellings, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, ordered))) if ordered else None

    def mask(self, text: str) -> str:
        """`text` without secrets; secrets shorter than four characters are not recognised."""
        if self._known is not None:
            text = self._known.sub(MASK, text)
        for shape, replacement in _SHAPES:
            text = re.sub(shape, replacement, text)
        return text


def masker_for(environment: Mapping[str, str], secrets: Iterable[str] = ()) -> SecretMasker:
    """Masks `secrets`, and every variable whose name says that it holds one."""
    presumed = [
        value
        for name, value in environment.items()
        if len(value) >= _SHORTEST_UNASKED and _SECRET_NAME.search(name.upper())
    ]
    return SecretMasker([*presumed, *secrets])


def _spellings(secret: str) -> Iterable[str]:
    """As it is, percent-encoded, as a Python literal, and in base64 as SMTP sends it."""
    if len(secret.strip("/")) < _SHORTEST_SECRET:
        return ()
    encoded = base64.b64encode(secret.encode()).decode()
    return (secret, quote(secret), quote(secret, safe=""), repr(secret)[1:-1], encoded)
