"""Put the figures of ``benchmarks/results`` into the tables of the pages.

    python -m benchmarks.quality.tables

A table stands between ``<!-- results: NAME -->`` and ``<!-- end of results -->``; it is made from
``benchmarks/results/NAME.json`` and nothing else, and whoever wants another figure measures again.
"""

import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from recsys.errors import InputError
from recsys.models.model_types import MODEL_TYPES
from recsys.publishing import write_text
from recsys.settings import REPOSITORY

RESULTS = REPOSITORY / "benchmarks" / "results"
_BLOCK = re.compile(r"(<!-- results: (\w+) -->\n)(.*?)(<!-- end of results -->)", re.DOTALL)
_HASAKI = {
    "leave-one-out": None,
    "one known product": "one_known_item",
    "new products": "new_products",
    "another family": "another_family",
}


def pages() -> list[Path]:
    return [*REPOSITORY.glob("README*.md"), *(REPOSITORY / "docs").glob("*.md")]


def filled(text: str, results: Path = RESULTS) -> str:
    """`text` with the table of each of its blocks as the results have it. Raises `InputError` if
    there is no such file of results."""
    return _BLOCK.sub(lambda found: found[1] + table(found[2], results) + found[4], text)


def table(name: str, results: Path = RESULTS) -> str:
    """The table of ``<results>/<name>.json``, and below it how its rows were made."""
    try:
        report = json.loads((results / f"{name}.json").read_text(encoding="utf-8"))
    except OSError:
        raise InputError(f"{results / name}.json: there are no such results") from None
    lines = list(_sequences(report) if "published" in report else _hasaki(report))
    return "\n".join(["", *lines, "", *_made(report["models"]), ""])


def _sequences(report: Mapping[str, Any]) -> Iterator[str]:
    yield "| model | fitted on train | refitted on train + validation | fit |"
    yield "|---|---|---|---|"
    for name, (hit, ndcg) in report["published"].items():
        yield f"| {name} (published) | {_number(hit)} / {_number(ndcg)} | | |"
    for name, row in report["models"].items():
        cells = [
            _figures(row[side], row.get(f"{side}_spread", {})) for side in ("train_only", "refit")
        ]
        chosen = name == report["selected"]
        yield _line(name, [*cells, f"{row['fit_seconds']:.1f} s"], chosen)


def _hasaki(report: Mapping[str, Any]) -> Iterator[str]:
    yield f"| model | {' | '.join(_HASAKI)} | 90-day windows |"
    yield "|" + "---|" * (len(_HASAKI) + 2)
    lows = {
        name: row["metrics"]["recall_at_10_low"]
        for name, row in report["models"].items()
        if row["comparison"]["passes"] and name in MODEL_TYPES  # "hybrid, no lift" is none
    }
    for name, row in report["models"].items():
        parts = [row["segments"][one] if one else row["metrics"] for one in _HASAKI.values()]
        window = row["comparison"]
        inside = (window["window_recall_at_10"], window["window_ndcg_at_10"])
        cells = [*map(_figures, parts), " / ".join(map(_number, inside))]
        yield _line(name, cells, name == max(lows, key=lambda one: lows[one], default=None))


def _line(name: str, cells: list[str], chosen: bool) -> str:
    """A row of the table; that of the model which is chosen is bold."""
    if chosen:
        name, cells[0] = f"**{name}** (selected)", f"**{cells[0]}**"
    return f"| {name} | {' | '.join(cells)} |"


def _figures(metrics: Mapping[str, float], spread: Mapping[str, float] | None = None) -> str:
    if "recall_at_10" not in metrics:
        return ""
    names = ("recall_at_10", "ndcg_at_10")
    told = " / ".join(_number(metrics[name]) for name in names)
    if spread:
        return f"{told} ± {' / '.join(_number(spread[name]) for name in names)}"
    ends = (_number(metrics[f"recall_at_10_{end}"], 3) for end in ("low", "high"))
    return f"{told} [{'-'.join(ends)}]"


def _number(value: float, digits: int = 4) -> str:
    return f"{value:.{digits}f}".removeprefix("0")


def _made(rows: Mapping[str, Any]) -> Iterator[str]:
    """A line for all models that were measured in one go."""
    groups: dict[str, list[str]] = {}
    for name, row in rows.items():
        groups.setdefault(json.dumps(row["made"], sort_keys=True), []).append(name)
    for key, names in groups.items():
        made = json.loads(key)
        machine, seeds = made["machine"], made["seeds"]
        chosen = ", ".join(f"{name} {value}" for name, value in made["configuration"].items())
        seed = f"seed {seeds[0]}" if len(seeds) == 1 else f"mean of {len(seeds)} seeds ± deviation"
        yield (
            f"{', '.join(names)}: measured with {chosen}; {seed}; "
            f"{made['date']}, commit {made['commit']}, {machine['processor']}, "
            f"{machine['cores']} cores.\n"
        )


def main() -> None:
    for page in pages():
        text = page.read_text(encoding="utf-8")
        if filled(text) != text:
            write_text(page, filled(text))
            print(f"{page.relative_to(REPOSITORY)}: rewritten")


if __name__ == "__main__":
    try:
        main()
    except (InputError, OSError) as error:
        sys.exit(f"error: {error}")
