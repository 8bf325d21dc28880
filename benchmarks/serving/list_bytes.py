"""Claim: a served list of ten products takes at most 250 bytes on its way, written alone, and less
in a busy hour.

    python -m benchmarks.serving.list_bytes [--lists 20000]

Lists of ten of 2,244 products for 26,000 users. The reference is the same list as a line of JSON,
plain and through gzip.
"""

import argparse
import gzip
import json
import random
import time
import uuid

from benchmarks.serving.harness import fresh_home
from recsys.outcomes.partitions import read_lists, served_days, take_over
from recsys.served_lists import SegmentWriter, ServedList, encode, new_id

USERS, ITEMS = 26_000, 2_244


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lists", type=int, default=20_000)
    options = parser.parse_args()
    print(f"input: {options.lists} lists of 10 of {ITEMS} products for {USERS} users")
    for sessions in (False, True):
        lists = make_lists(options.lists, sessions)
        lines = "\n".join(json.dumps(as_json(one)) for one in lists).encode()
        started = time.perf_counter()
        blocks = [encode(lists[at : at + 250]) for at in range(0, len(lists), 250)]
        seconds = time.perf_counter() - started
        alone = [len(encode([one])) for one in lists[:1000]]
        print(
            f"{'with' if sessions else 'without'} sessions: alone {max(alone)} bytes at most "
            f"(wanted: 250), in blocks of 250 {sum(map(len, blocks)) / len(lists):.0f} bytes, "
            f"in a day's file {day_bytes(lists):.0f} bytes; JSON {len(lines) / len(lists):.0f}, "
            f"gzipped {len(gzip.compress(lines)) / len(lists):.0f}; "
            f"{seconds / len(lists) * 1e6:.1f} microseconds a list"
        )


def make_lists(count: int, sessions: bool) -> list[ServedList]:
    """A list every tenth of a second; popular products more often."""
    chance = random.Random(0)
    products = [str(422_000_000 + number) for number in range(ITEMS)]
    found = []
    for number in range(count):
        moment = 1_790_000_000 + number / 10
        session = str(uuid.UUID(int=chance.getrandbits(128))) if sessions else None
        shown = {products[int(ITEMS * chance.random() ** 2)] for _ in range(14)}
        found.append(
            ServedList(
                *(new_id(moment), moment, str(chance.randrange(USERS)), session, "home"),
                *("recommend", "als_20250115_100000", None, "", ""),
                *(tuple(shown)[:10], "m" * 10),
            )
        )
    return found


def as_json(one: ServedList) -> dict[str, object]:
    return one._asdict() | {"id": str(uuid.UUID(bytes=one.id))}


def day_bytes(lists: list[ServedList]) -> float:
    settings = fresh_home("list_bytes")
    writer = SegmentWriter(settings)
    writer.append(writer.count(len(lists)), lists)
    writer.close()
    take_over(settings)
    assert len(read_lists(settings, served_days(settings))) == len(lists)
    files = settings.home.glob("data/served/day=*/*.parquet")
    return sum(path.stat().st_size for path in files) / len(lists)


if __name__ == "__main__":
    main()
