"""Simulated customers of the sample shop: a demonstration of the loop from lists to outcomes, and
traffic of which the truth is known, for tests and benchmarks.

`shop` and `world` say who the customers are, `behaviour` what they do with a list, `visits` when
they come, `traffic` puts these together, `truth` tells what is attributable, `files` writes it
down."""

from recsys.simulation.files import write_traffic
from recsys.simulation.shop import Shop, invented_shop, shop_of, shop_of_version
from recsys.simulation.traffic import (
    Disorder,
    Events,
    Lists,
    Side,
    Traffic,
    by_popularity,
    by_taste,
    simulate,
)
from recsys.simulation.truth import WINDOWS, Truth, truth_of
from recsys.simulation.visits import Period
from recsys.simulation.world import World

__all__ = ["WINDOWS", "Disorder", "Events", "Lists", "Period", "Shop", "Side", "Traffic", "Truth"]
__all__ += ["World", "by_popularity", "by_taste", "invented_shop", "shop_of", "shop_of_version"]
__all__ += ["simulate", "truth_of", "write_traffic"]
