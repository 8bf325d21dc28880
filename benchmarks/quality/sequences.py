"""Our models on a file of sequences, beside the published table.

One user a line: the user's id, then item ids in time order. The last item is the test, the one
before it the validation. Everything is chosen on validation; the test item is ranked against all
items that are not in the user's history. An answer that is in the history (somebody bought it
again) cannot be recommended and counts as missed, for every model alike.

    python -m benchmarks.quality.sequences --data ../shared/data/amazon_beauty/Beauty.txt

With ``--json benchmarks/results/beauty.json`` the figures are kept, and
``python -m benchmarks.quality.tables`` puts them on the pages. With ``--models`` only these are
measured: the rows of the others stay, and a hybrid takes over their parameters. With ``--seeds 5``
everything is done five times; the figures are means, and each row says their standard deviation.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.quality._results import (
    Row,
    over_seeds,
    provenance,
    read_rows,
    write_report,
)
from recsys.errors import InputError
from recsys.evaluation.metrics import metrics_per_user, summarise
from recsys.evaluation.ranking import HeldOut, rank_targets
from recsys.models.base import Histories, Model
from recsys.models.histories import histories_from_codes, take_users
from recsys.models.hybrid import COMPONENTS
from recsys.models.model_types import MODEL_TYPES
from recsys.training.fits import KeptFits
from recsys.training.search import Found
from recsys.training.subject import Subject
from recsys.training.tuning import tune

DAY = 86_400
SHARES = {"item_knn": 4, "linear": 4, "als": 5, "bpr": 1, "self_attention": 20, "hybrid": 6}
"""How the budget is shared by the models that are tuned, of those that are asked for."""
MODELS = ["popularity", *(name for name in SHARES if name in MODEL_TYPES)]
MANY_TRIALS = 100_000

PUBLISHED_ON_BEAUTY = {
    "PopRec": (0.0152, 0.0068),
    "GRU4Rec": (0.0283, 0.0137),
    "Caser": (0.0347, 0.0176),
    "BERT4Rec": (0.0347, 0.0170),
    "HGN": (0.0512, 0.0266),
    "SASRec": (0.0605, 0.0318),
    "S3-Rec": (0.0647, 0.0327),
    "BSARec, full cross-entropy": (0.1002, 0.0610),
}


class Sequences:
    """The file as training histories and questions. Times are places in the sequence, in days."""

    def __init__(self, path: Path) -> None:
        lines = [line.split() for line in path.read_text(encoding="utf-8").splitlines()]
        sequences = [line[1:] for line in lines if len(line) > 1]
        if len(sequences) < 2:
            raise InputError(f"{path}: expected lines of a user id and item ids")
        lengths = np.array([len(one) for one in sequences])
        names, codes = np.unique([item for one in sequences for item in one], return_inverse=True)
        self.items = len(names)
        self._users = np.repeat(np.arange(len(sequences)), lengths)
        self._codes = codes
        self._place = np.arange(len(codes)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        self._left = np.repeat(lengths, lengths) - 1 - self._place
        self._lengths = lengths
        self.training = self._histories(2)
        self.training_and_validation = self._histories(1)
        self.everything = self._histories(0)
        self.validation = self._questions(self.training, 1)
        self.test = self._questions(self.training_and_validation, 0)

    def _histories(self, left: int) -> Histories:
        """All histories without the last `left` items of each user.

        A user of one or two items has no test: nothing of theirs is held out.
        """
        kept = (self._left >= left) | (self._lengths[self._users] < 3)
        return histories_from_codes(
            self._users[kept],
            self._codes[kept],
            self._place[kept] * DAY,
            count=len(self._lengths),
        )

    def _questions(self, known: Histories, left: int) -> HeldOut:
        asked = np.flatnonzero(self._lengths >= 3)
        answers = (self._left == left) & (self._lengths[self._users] >= 3)
        return HeldOut(
            histories=take_users(known, asked),
            now=self._place[answers] * DAY,
            indptr=np.arange(len(asked) + 1),
            targets=self._codes[answers].astype(np.int32),
        )


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    options = _parse(arguments)
    data = Sequences(options.data)
    of_data = {
        "name": options.data.name,
        "users": data.training.users,
        "items": data.items,
        "interactions": len(data.everything.items),
    }
    print(
        f"input: {options.data.name}: {data.training.users:,} users, {data.items:,} items, "
        f"{len(data.everything.items):,} interactions; {options.budget:.0f} s of tuning",
        flush=True,
    )
    rows = read_rows(options.json, of_data)
    rows |= _measure(data, options, rows)
    tuned = [name for name, row in rows.items() if "validation_objective" in row]
    selected = max(tuned, key=lambda name: rows[name]["validation_objective"], default=None)
    published = PUBLISHED_ON_BEAUTY if options.data.name == "Beauty.txt" else {}
    _print_table(rows, selected, published)
    report = {"data": of_data, "selected": selected, "published": published, "models": rows}
    if options.json:
        write_report(options.json, report)
    return report


def _measure(
    data: Sequences, options: argparse.Namespace, known: Mapping[str, Row]
) -> dict[str, Row]:
    """A row of each model that is asked for, over all seeds."""
    seeds = range(options.seed, options.seed + options.seeds)
    with tempfile.TemporaryDirectory() as kept:
        fits = KeptFits(Path(kept))
        subjects = [
            Subject(data.training, data.validation, data.items, seed, fits=fits) for seed in seeds
        ]
        runs = [_run(data, options.models, options.budget, one, known) for one in subjects]
    made = provenance("benchmarks.quality.sequences", {"budget": options.budget}, seeds)
    return {name: _row([run[name] for run in runs], made) for name in runs[0]}


def _row(runs: Sequence[Row], made: Row) -> Row:
    """One model's `runs` as one row: means, and the parameters of the first seed."""
    row = {**runs[0], "made": made}
    row["fit_seconds"] = round(float(np.mean([run["fit_seconds"] for run in runs])), 2)
    if "validation_objective" in row:
        scores = [run["validation_objective"] for run in runs]
        row["validation_objective"] = round(float(np.mean(scores)), 6)
    for side in ("train_only", "refit"):
        row[side], spread = over_seeds([run[side] for run in runs])
        if spread:
            row[f"{side}_spread"] = spread
    return row


def _run(
    data: Sequences,
    models: Sequence[str],
    budget: float,
    subject: Subject,
    known: Mapping[str, Row],
) -> dict[str, Row]:
    """Tune and judge `models` with one seed. Of models that are not among them but known, a hybrid
    takes the parameters."""
    rows: dict[str, Row] = {}
    components = {name: row["parameters"] for name, row in known.items() if name in COMPONENTS}
    shares = {name: SHARES[name] for name in MODELS if name in SHARES and name in models}
    if "popularity" in models:
        rows["popularity"] = _judge(data, "popularity", {}, subject)
    for name, share in shares.items():
        found = tune(
            name,
            subject,
            {},
            seconds=budget * share / sum(shares.values()),
            trials=MANY_TRIALS,
            tuned_components=components,
        )
        _tell(name, found)
        rows[name] = _judge(data, name, found.parameters, subject)
        rows[name] |= {"validation_objective": found.score, "trials": found.trials}
        if name in COMPONENTS:
            components[name] = found.parameters
    return rows


def _judge(
    data: Sequences, model_type: str, parameters: Mapping[str, Any], subject: Subject
) -> dict[str, Any]:
    """``fit_seconds`` are of the second fit, and of a blend without what is kept of its members."""
    model = subject.fit(model_type, parameters)
    result: dict[str, Any] = {
        "parameters": model.hyperparameters,
        "train_only": _metrics(model, data.test),
    }
    begun = time.monotonic()
    model = subject.fit(model_type, parameters, data.training_and_validation)
    seconds = round(time.monotonic() - begun, 2)
    return {**result, "fit_seconds": seconds, "refit": _metrics(model, data.test)}


def _metrics(model: Model, questions: HeldOut) -> dict[str, float]:
    return summarise(metrics_per_user(rank_targets(model, questions)))


def _tell(model_type: str, tuned: Found) -> None:
    print(
        f"tuned {model_type}: {tuned.trials} trials, "
        f"validation objective {tuned.score:.4f}: {json.dumps(tuned.parameters)}",
        flush=True,
    )


def _print_table(
    rows: Mapping[str, Row], selected: str | None, published: Mapping[str, tuple[float, float]]
) -> None:
    heading = "HR@10 / NDCG@10 on test"
    print(f"\n{'model':<38}{heading:<46}{'refitted on train + validation':<46}fit")
    for name, (hit, ndcg) in published.items():
        print(f"{name + ' (published)':<38}{hit:.4f} / {ndcg:.4f}")
    for name, row in rows.items():
        mark = " <- selected" if name == selected else ""
        train, refit = (_cell(row, side) for side in ("train_only", "refit"))
        print(f"{name:<38}{train:<46}{refit:<46}{row['fit_seconds']:.1f} s{mark}")


def _cell(row: Row, side: str) -> str:
    metrics, spread = row[side], row.get(f"{side}_spread")
    hit, low, high = (metrics[f"recall_at_10{end}"] for end in ("", "_low", "_high"))
    told = f"{hit:.4f} / {metrics['ndcg_at_10']:.4f}"
    if not spread:
        return f"{told} [{low:.4f}-{high:.4f}]"
    return f"{told} +- {spread['recall_at_10']:.4f} / {spread['ndcg_at_10']:.4f}"


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="the file of sequences")
    parser.add_argument("--budget", type=float, default=600, help="seconds of tuning in all")
    parser.add_argument("--json", type=Path, help="file of figures to write, or to add to")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS, metavar="MODEL")
    parser.add_argument("--seed", type=int, default=42, help="the first one")
    parser.add_argument("--seeds", type=int, default=1, help="how many, for means with a spread")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    try:
        main()
    except (InputError, OSError) as error:
        sys.exit(f"error: {error}")
