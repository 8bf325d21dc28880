"""Pages of experiments in every state that one may be in, as the outcomes job writes them."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.experiments.sequential import Shop, simulate
from recsys.experiments.evaluation import evaluate
from recsys.experiments.page import render_experiment_pages
from recsys.experiments.planning import Plan
from recsys.experiments.state import Experiments
from recsys.reporting import write_pages
from recsys.settings import Settings
from tests.drift.shop import ZONE
from tests.experiments.test_evaluation import FIRST, SHOP, after, write_days
from tests.experiments.test_state import definition
from tests.serving.shops import add_model

SIDES = ("hien-nay", "moi")
_LONG = "x" * 64


def make_pages(settings: Settings) -> dict[str, Path]:
    """The plain pages by the name of the experiment, in the order of their starts."""
    for model in ("als_1", "als_2"):
        add_model(settings, model, select=model == "als_1")
    _run(settings, "skewed", 0, 27, shop=Shop(900, 6000), share=0.46)
    _run(settings, "falls-back", 30, 3, fallbacks=(0.1, 0.4))
    _run(settings, "worse", 40, 27.5, uplift=-0.3)
    Experiments(settings).stop("worse", "minh", "đợt giảm giá bắt đầu", after(68))
    evaluate(settings, after(69))
    _run(settings, "alike", 70, 28, smallest_effect=0.5)
    Experiments(settings).stop("alike", "outcomes", "the next one is to begin", after(98))
    _run(settings, "better", 110, 21.5, uplift=0.3)
    placements = ["home", "gio-hang"]
    _run(settings, "begun", 132, 0.1, days=0, placements=placements)
    pages = {one.name: _page(settings, one.name) for one in Experiments(settings).all()}
    pages["many"] = _page(settings, "many")
    report = with_many_sides(json.loads(pages["better"].with_suffix(".json").read_bytes()))
    write_pages(pages["many"], render_experiment_pages(report, pages["many"], ZONE))
    return pages


def _page(settings: Settings, name: str) -> Path:
    return settings.reports / "experiments" / f"{name}.html"


def _run(
    settings: Settings,
    name: str,
    first: int,
    age: float,
    *,
    shop: Shop = SHOP,
    days: int = 28,
    fallbacks: tuple[float, float] = (0.1, 0.1),
    smallest_effect: float = 0.05,
    placements: list[str] | None = None,
    **simulated: float,
) -> None:
    """An experiment that begins on the day `first` and is judged when it is `age` days old."""
    asked = {"question": "Mô hình mới có được bấm nhiều hơn không?", "name": name}
    models = (None, "als_2")
    asked["variants"] = [
        {"name": side, "share": 0.5, "model_id": model}
        for side, model in zip(SIDES, models, strict=True)
    ]
    about = {"smallest_effect": smallest_effect, "placements": placements or ["cart"]}
    planned = Plan("clicks_per_list", 0.05, 0.8, 0.05, 0.1, 28, 9_000, 50.0, 100, 100, 28)
    Experiments(settings).start(
        definition(**asked, **about), by="lan", planned=planned, now=after(first)
    )
    if days:
        visits = simulate(np.random.default_rng(1), shop, days, **simulated)
        began = FIRST + timedelta(days=first)
        named = {"name": name, "names": SIDES}
        write_days(settings, visits, first=began, fallbacks=fallbacks, **named)
    evaluate(settings, after(first + age))


def with_many_sides(report: dict[str, Any]) -> dict[str, Any]:
    """Eight sides with the longest names, of which not all were seen on all days."""
    control, other = report["sides"]
    names = [f"{number}{_LONG}"[:64] for number in range(7)]
    courses = [report["running"], *report["others"].values()]
    for rows_by_side in (one for one in courses if one):
        rows = rows_by_side.pop("moi")
        rows_by_side.update(dict.fromkeys(names, rows))
    sides = [other | {"variant": name, "model": f"als_{_LONG}"} for name in names]
    return report | {"name": "many", "sides": [control, *sides], "winner": names[0]}
