"""Load at a steady rate: latencies count from when a request was due, not from when it was sent."""

import asyncio
import gc
import json
import os
import random
import time

import numpy as np
import uvloop

CONNECTIONS = 16


class _Client(asyncio.Protocol):
    """One keep-alive connection with one request at a time."""

    def __init__(self, idle: asyncio.Queue["_Client"], latencies: list[float]) -> None:
        self._idle, self._latencies = idle, latencies
        self._buffer = b""
        self._due = 0.0
        self.failed = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._idle.put_nowait(self)

    def ask(self, body: bytes, due: float) -> None:
        self._due = due
        self._transport.write(  # type: ignore[attr-defined]
            b"POST /recommend HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
        )

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, separator, rest = self._buffer.partition(b"\r\n\r\n")
        if not separator:
            return
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        if len(rest) < length:
            return
        self.failed += not head.startswith(b"HTTP/1.1 200")
        self._buffer = b""
        self._latencies.append((time.perf_counter() - self._due) * 1000)
        self._idle.put_nowait(self)


def percentiles_at_rate(
    port: int, users: int, rate: float, seconds: float, core: int = 1
) -> dict[int, float]:
    """Milliseconds by percentile (50, 90, 99) of POST /recommend at `rate` requests/s."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    # A pause of the generator would look like one of the server.
    gc.collect()
    gc.disable()
    try:
        latencies = uvloop.run(_load(port, users, rate, seconds))
    finally:
        gc.enable()
        os.sched_setaffinity(0, before)
    return {level: float(np.percentile(latencies, level)) for level in (50, 90, 99)}


async def _load(port: int, users: int, rate: float, seconds: float) -> list[float]:
    loop = asyncio.get_running_loop()
    idle: asyncio.Queue[_Client] = asyncio.Queue()
    latencies: list[float] = []
    clients = [
        (await loop.create_connection(lambda: _Client(idle, latencies), "127.0.0.1", port))[1]
        for _ in range(CONNECTIONS)
    ]
    start = time.perf_counter()
    for number in range(int(rate * seconds)):
        due = start + number / rate
        wait = due - time.perf_counter()
        if wait > 0.001:
            await asyncio.sleep(wait)
        body = json.dumps({"user_id": random.randrange(users)}).encode()
        (await idle.get()).ask(body, due)
    for _ in range(CONNECTIONS):
        await asyncio.wait_for(idle.get(), 10)
    failed = sum(client.failed for client in clients)
    if failed:
        raise RuntimeError(f"{failed} requests failed")
    return latencies
