"""Writes docker/cluster.env from docker/cluster.env.example, with a secret for every empty value
that is marked "generated". An existing file keeps what it has.

    python docker/write_env.py
"""

import base64
import os
import secrets
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
MARK = "# generated"


def fill(template: str, existing: dict[str, str]) -> str:
    """`template` with the values of `existing`, and secrets where a generated one is empty.

    What `existing` has beyond the template stays, at the end.
    """
    lines, generated, others = [], False, dict(existing)
    for line in template.splitlines():
        name, separator, value = line.partition("=")
        if line.startswith("#") or not separator:
            generated = line.startswith(MARK) or (generated and bool(line))
            lines.append(line)
            continue
        chosen = others.pop(name, "") or value
        if not chosen and generated:
            chosen = new_secret(name)
        lines.append(f"{name}={chosen}")
    lines += [f"{name}={value}" for name, value in others.items()]
    return "\n".join(lines) + "\n"


def read_values(path: Path) -> dict[str, str]:
    """The variables of a file such as cluster.env."""
    pairs = (line.partition("=") for line in path.read_text("utf-8").splitlines())
    return {name: value for name, sign, value in pairs if sign and name[:1] != "#"}


def new_secret(name: str) -> str:
    """64 random bytes as URL-safe text; for a Fernet key 32 in its own alphabet."""
    if name.endswith("FERNET_KEY"):
        return base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()
    return secrets.token_urlsafe(64)


def main() -> int:
    target = FOLDER / "cluster.env"
    existing = read_values(target) if target.exists() else {}
    text = fill((FOLDER / "cluster.env.example").read_text("utf-8"), existing)
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    target.chmod(0o600)
    print(f"{target} is complete")
    return 0


if __name__ == "__main__":
    sys.exit(main())
