"""Claim: Hasaki's year 2023, week by week, is judged as what it was.

A backfill over the real reviews (Kaggle's Hasaki data set): publishes a data version through the
refresh job, then runs the drift job once a Monday. Prints a line a week and draws the year.

    python -m benchmarks.drift.hasaki_2023 FOLDER_WITH_REVIEWS_CSV [--picture docs/drift-2023.png]
"""

import argparse
import json
import shutil
import tempfile
import time
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from matplotlib.figure import Figure

from recsys.drift.job import detect_drift
from recsys.refresh.job import run_refresh
from recsys.schedule import DataInterval
from recsys.settings import Settings

ZONE = ZoneInfo("Asia/Ho_Chi_Minh")
FIRST_MONDAY = date(2023, 1, 9)  # the report about the week of 2 January
WEEKS = 52
COLOURS = {"low": "#2563eb", "medium": "#d97706", "high": "#b91c1c", "not judged": "#9aa5b1"}
EXPECTED = {
    "2023-04-10": {"volume"},
    "2023-04-24": {"volume", "campaign"},
    "2023-05-01": {"volume", "campaign"},
    "2023-11-13": {"volume", "campaign"},
    "2023-11-20": {"volume", "campaign"},
}


def published(home: Path, source: Path) -> Settings:
    settings = Settings(home)
    folder = settings.raw / "hasaki"
    folder.mkdir(parents=True)
    for name in ("reviews.csv", "products.csv"):
        shutil.copy(source / name, folder / name)
    (home / "config").mkdir()
    (home / "config" / "data.yaml").write_text("source: hasaki\n", encoding="utf-8")
    end = datetime(2024, 12, 2, tzinfo=ZONE)
    run_refresh(settings, DataInterval(end - timedelta(days=1), end))
    return settings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--keep", type=Path, help="keep the state root here")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        settings = published(arguments.keep or Path(scratch), arguments.source)
        reports, began = [], time.perf_counter()
        for count in range(WEEKS):
            monday = FIRST_MONDAY + timedelta(weeks=count)
            end = datetime(monday.year, monday.month, monday.day, 9, tzinfo=ZONE)
            summary = detect_drift(settings, DataInterval(end - timedelta(days=7), end))
            report = json.loads((settings.home / summary["report"]).read_text(encoding="utf-8"))
            reports.append(report)
            _print_week(report)
        seconds = time.perf_counter() - began
    raised = {_week(report): set(report["raised"]) for report in reports if report["raised"]}
    print(f"{WEEKS} weeks in {seconds:.1f} s ({seconds / WEEKS:.2f} s a week)")
    print(f"as expected: {raised == EXPECTED}" + ("" if raised == EXPECTED else f": {raised}"))
    if arguments.picture:
        _draw(reports, arguments.picture)


def _week(report: dict[str, Any]) -> str:
    return str(report["windows"]["new"]["start"][:10])


def _print_week(report: dict[str, Any]) -> None:
    volume = report["interaction_drift"]["volume"]
    window = report["windows"]["new"]
    low, high = volume["band_99"]
    print(
        f"{_week(report)} rows={window['rows']:5} reviews={window['events']:4} "
        f"expected={volume['expected']:5.0f} band={low:.0f}-{high:.0f} "
        f"{report['overall_severity']:6} {volume['pattern'] or ''} "
        f"raised={','.join(report['raised']) or '-'}"
    )


def _draw(reports: list[dict[str, Any]], picture: Path) -> None:
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    days = [date.fromisoformat(_week(report)) for report in reports]
    volumes = [report["interaction_drift"]["volume"] for report in reports]
    counts = [volume["events"] for volume in volumes]
    upper.fill_between(
        days,
        [max(volume["band_99"][0], 1) for volume in volumes],
        [volume["band_99"][1] for volume in volumes],
        color="#9aa5b1",
        alpha=0.35,
        linewidth=0,
        label="99 % band",
    )
    upper.plot(days, [volume["expected"] for volume in volumes], color="#616e7c", label="expected")
    upper.plot(days, [volume["rows"] for volume in volumes], ":", color="#2563eb", label="rows")
    colours = [COLOURS[report["overall_severity"]] for report in reports]
    upper.plot(days, counts, color="#2563eb", linewidth=0.8, label="reviews without copies")
    upper.scatter(days, counts, c=colours, s=26, zorder=3)
    marked = [place for place, report in enumerate(reports) if report["raised"]]
    for place in marked:
        left = any(0 < other - place <= 2 for other in marked)
        upper.annotate(
            f"{days[place]:%d %b}: {volumes[place]['pattern']}",
            (days[place], counts[place]),
            xytext=(-7 if left else 7, 2),
            textcoords="offset points",
            ha="right" if left else "left",
            fontsize=8,
        )
    upper.set_yscale("log")
    upper.set_ylabel("a week")
    upper.legend(frameon=False, ncols=4, loc="upper left", fontsize=8)
    upper.set_title("Hasaki 2023: one report a week", loc="left", fontweight="bold")
    names = ["rating", "popularity", "volume", "campaign", "model"]
    sections = ["rating_drift", "popularity_drift", None, "campaign", "model_drift"]
    for row, (name, section) in enumerate(zip(names, sections, strict=True)):
        parts = [
            report["interaction_drift"]["volume"] if section is None else report[section]
            for report in reports
        ]
        shades = [
            "#e4e7eb"
            if part["status"] == "insufficient_data"
            else COLOURS[report["overall_severity"]]
            if name in report["raised"]
            else "#a7d7b8"
            for part, report in zip(parts, reports, strict=True)
        ]
        lower.scatter(days, [row] * len(days), c=shades, marker="s", s=42)
    lower.set_yticks(range(len(names)), names, fontsize=8)
    lower.set_ylim(-0.6, len(names) - 0.4)
    lower.set_xlabel("green: quiet; grey: not enough data; orange, red: raised", fontsize=8)
    figure.savefig(picture, dpi=110)


if __name__ == "__main__":
    main()
