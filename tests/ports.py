"""TCP ports that no two tests are given, in whatever processes they run."""

import contextlib
import secrets
import socket

# Below those that Linux and macOS give to connections by themselves.
PORTS = range(20_000, 32_000)
_claims: list[socket.socket] = []


def find_free_port() -> int:
    """A loopback TCP port that nothing listens on, and that no other test is given.

    The UDP port of the same number is the claim: this process holds it as long as it lives, so
    tests that run side by side never get the same one.
    """
    while True:
        port = secrets.choice(PORTS)
        claim = socket.socket(type=socket.SOCK_DGRAM)
        try:
            claim.bind(("127.0.0.1", port))
            with contextlib.closing(socket.socket()) as probe:
                probe.bind(("127.0.0.1", port))
        except OSError:
            claim.close()
            continue
        _claims.append(claim)
        return port
