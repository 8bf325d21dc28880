"""Small worlds and their traffic."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from recsys.simulation import Period, Traffic, World, invented_shop, simulate

VIETNAM = ZoneInfo("Asia/Ho_Chi_Minh")
END = datetime(2026, 3, 16, 5, tzinfo=UTC)


def period(days: float = 14) -> Period:
    return Period(END - timedelta(days=days), END, VIETNAM)


def world(seed: int = 0, customers: int = 300, newcomers: int = 50) -> World:
    return World(invented_shop(120, customers), newcomers, seed)


def traffic(lists: int = 2_000, seed: int = 0, days: float = 14, **options) -> Traffic:
    return simulate(world(seed), period(days), lists, seed=seed, **options)
