"""The two ways to have traffic: some days of the past, and now."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from recsys.data.simulated import require_sample
from recsys.data.versions import current_version
from recsys.schedule import load_zone
from recsys.settings import Settings
from recsys.simulation.files import write_traffic
from recsys.simulation.live import Service, send_traffic
from recsys.simulation.shop import Shop, shop_of_version
from recsys.simulation.traffic import Side, by_popularity, simulate
from recsys.simulation.truth import truth_of
from recsys.simulation.visits import Period
from recsys.simulation.world import World

NEWCOMERS = 0.1
"""Customers whom the shop does not know yet, for each that it knows."""

RATED = 0.2
"""Of the purchases, where reviews are asked for."""

BASKETS = 0.3
"""So often a product of another step of the routine comes into the basket, too."""

SIDES: Final = (Side(share=0.9), Side(by_popularity, 0.1, "holdout", "popularity"))
"""As if a tenth of the customers were held out from the recommendations."""


def simulate_days(
    settings: Settings,
    shop: Shop,
    days: int,
    lists_per_day: int,
    *,
    seed: int,
    ratings: bool,
    baskets: float = 0.0,
) -> dict[str, Any]:
    """Write traffic of the last `days` days until now as if customers of `shop` had been served,
    with `ratings` where they also review what they buy; `baskets` is as `simulate` has it. Returns
    the period, how many ``lists`` and ``events`` there are, and what of them is ``attributable``,
    by kind. Raises `OSError`."""
    until = datetime.now(UTC).replace(microsecond=0)
    period = Period(until - timedelta(days=days), until, load_zone(settings))
    rated = RATED if ratings else 0.0
    world, lists = _world(shop, seed), days * lists_per_day
    traffic = simulate(world, period, lists, sides=SIDES, rated=rated, baskets=baskets, seed=seed)
    done = write_traffic(settings, traffic)
    totals = truth_of(traffic).totals().drop(columns=["lists", "users"]).sum()
    return {
        "since": period.since.astimezone(period.zone).isoformat(),
        "until": period.until.astimezone(period.zone).isoformat(),
        **done,
        "attributable": {str(name): round(float(total)) for name, total in totals.items()},
    }


def simulate_past(
    settings: Settings, days: int, lists_per_day: int, *, seed: int, ratings: bool
) -> dict[str, Any]:
    """`simulate_days` of the published version. Raises `InputError` if it is not of the sample
    shop, `VersionError` if there is none."""
    version = current_version(settings)
    require_sample(settings, version)
    shop = shop_of_version(version)
    return simulate_days(
        settings, shop, days, lists_per_day, seed=seed, ratings=ratings, baskets=BASKETS
    )


def simulate_now(
    settings: Settings,
    variables: Mapping[str, str],
    *,
    seconds: float,
    rate: float,
    seed: int,
    tell: Callable[[str], None],
) -> dict[str, Any]:
    """`send_traffic` by customers of the published version to the service that the `variables`
    RECSYS_SERVICE_URL and RECSYS_WRITE_TOKEN describe. Raises like `simulate_past` and
    `send_traffic`."""
    version = current_version(settings)
    require_sample(settings, version)
    world = _world(shop_of_version(version), seed)
    url = variables.get("RECSYS_SERVICE_URL") or "http://127.0.0.1:8000"
    # Of several senders' tokens the first will do.
    token = variables.get("RECSYS_WRITE_TOKEN", "").split(",")[0].rpartition(":")[2].strip()
    service = Service(url.rstrip("/"), token or None)
    return send_traffic(settings, world, service, seconds=seconds, rate=rate, seed=seed, tell=tell)


def _world(shop: Shop, seed: int) -> World:
    return World(shop, round(NEWCOMERS * len(shop.customer_ids)), seed)
