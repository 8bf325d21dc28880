"""How many held-out purchases are of a product family that the user had before.

    python -m benchmarks.data.family_leaks [--reviews FILE --products FILE]

The split goes by events. A held-out row whose family stands in the user's training rows is a
question that a sibling listing could answer; the reference is the number of all questions.
"""

import argparse
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd

from benchmarks.data.refresh import use_scorer
from recsys import schema
from recsys.data.sources import select_source
from recsys.data.versions import current_version
from recsys.refresh.job import run_refresh
from recsys.schedule import DataInterval
from recsys.settings import Settings

HASAKI = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "hasaki"
KNOWN = {
    schema.VALIDATION: [schema.TRAIN],
    schema.TEST: [schema.TRAIN, schema.VALIDATION],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reviews", type=Path, default=HASAKI / "reviews.csv")
    parser.add_argument("--products", type=Path, default=HASAKI / "products.csv")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(Path(folder))
        use_scorer(settings, "none")
        select_source(settings, "hasaki", arguments.reviews, arguments.products)
        now = datetime.now(UTC)
        run_refresh(settings, DataInterval(now - timedelta(days=1), now))
        version = current_version(settings)
        rows = version.interactions()
        families = version.products().set_index(schema.PRODUCT)[schema.FAMILY]
        rows[schema.FAMILY] = rows[schema.PRODUCT].map(families)
        print(f"input: {len(rows)} rows, {families.nunique()} families of {len(families)} listings")
        for side, sides in KNOWN.items():
            print(count(rows[rows[schema.SPLIT] == side], rows[rows[schema.SPLIT].isin(sides)]))


def count(held_out: pd.DataFrame, known: pd.DataFrame) -> str:
    """Questions, and those of whose families the user had some, before or at the same time."""
    asked = held_out[held_out[schema.USER].isin(known[schema.USER])]
    keys = [schema.USER, schema.FAMILY]
    had = asked.merge(known, on=keys, suffixes=("", "_known"))
    together = had[had[f"{schema.TIMESTAMP}_known"] == had[schema.TIMESTAMP]]
    new = pd.MultiIndex.from_frame(asked[keys]).isin(pd.MultiIndex.from_frame(known[keys]))
    questions = asked[schema.USER].nunique()
    repeated = had[schema.USER].nunique()
    return (
        f"{asked[schema.SPLIT].iloc[0]}: {questions} questions; {repeated} "
        f"({repeated / questions:.1%}) are of a family that the user had, "
        f"{together[schema.USER].nunique()} of them from the same moment; "
        f"{asked[~new][schema.USER].nunique()} ask for another family"
    )


if __name__ == "__main__":
    main()
