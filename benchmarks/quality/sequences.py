"""Our models on a file of sequences, beside the published table.

One user a line: the user's id, then item ids in time order. The last item is the test, the one
before it the validation. Everything is chosen on validation; the test item is ranked against all
items that are not in the user's history. An answer that is in the history (somebody bought it
again) cannot be recommended and counts as missed, for every model alike.

    python -m benchmarks.quality.sequences --data ../shared/data/amazon_beauty/Beauty.txt
"""

import argparse
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from recsys.errors import InputError
from recsys.evaluation.metrics import metrics_per_user, summarise
from recsys.evaluation.ranking import HeldOut, rank_targets
from recsys.models.base import Histories, Model
from recsys.models.histories import histories_from_codes, take_users
from recsys.models.model_types import model_class
from recsys.training.search import Found
from recsys.training.tuning import Subject, tune

DAY = 86_400
TUNED = ("item_knn", "als", "bpr")
MANY_TRIALS = 100_000

PUBLISHED_ON_BEAUTY = {
    "PopRec": (0.0152, 0.0068),
    "GRU4Rec": (0.0283, 0.0137),
    "Caser": (0.0347, 0.0176),
    "BERT4Rec": (0.0347, 0.0170),
    "HGN": (0.0512, 0.0266),
    "SASRec": (0.0605, 0.0318),
    "S3-Rec": (0.0647, 0.0327),
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
    print(
        f"input: {options.data.name}: {data.training.users:,} users, {data.items:,} items, "
        f"{len(data.everything.items):,} interactions; {options.budget:.0f} s of tuning",
        flush=True,
    )
    subject = Subject(data.training, data.validation, data.items, options.seed)
    tuned = _tune_all(subject, options.budget)
    rows = {"popularity": _judge(data, "popularity", {}, options.seed)}
    for model_type, result in tuned.items():
        rows[model_type] = _judge(data, model_type, result.parameters, options.seed)
        rows[model_type]["validation_objective"] = result.score
        rows[model_type]["trials"] = result.trials
    selected = max(tuned, key=lambda name: tuned[name].score)
    _print_table(rows, selected, show_published=options.data.name == "Beauty.txt")
    report = {"data": options.data.name, "selected": selected, "models": rows}
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return report


def _tune_all(subject: Subject, budget: float) -> dict[str, Found]:
    """The model types by themselves, then the hybrid that starts from what was found."""
    tuned: dict[str, Found] = {}
    for model_type, share in zip(TUNED, (0.3, 0.35, 0.1), strict=True):
        tuned[model_type] = tune(
            model_type, subject, {}, seconds=budget * share, trials=MANY_TRIALS
        )
        _tell(model_type, tuned[model_type])
    components = {name: tuned[name].parameters for name in ("item_knn", "als")}
    tuned["hybrid"] = tune(
        "hybrid",
        subject,
        {},
        seconds=budget * 0.25,
        trials=MANY_TRIALS,
        tuned_components=components,
    )
    _tell("hybrid", tuned["hybrid"])
    return tuned


def _judge(
    data: Sequences, model_type: str, parameters: Mapping[str, Any], seed: int
) -> dict[str, Any]:
    begun = time.monotonic()
    model: Model = model_class(model_type).create(parameters, seed)
    model.fit(data.training, data.items)
    seconds = time.monotonic() - begun
    result: dict[str, Any] = {
        "parameters": model.hyperparameters,
        "fit_seconds": round(seconds, 2),
        "train_only": _metrics(model, data.test),
    }
    model.fit(data.training_and_validation, data.items)
    result["refit"] = _metrics(model, data.test)
    return result


def _metrics(model: Model, questions: HeldOut) -> dict[str, float]:
    return summarise(metrics_per_user(rank_targets(model, questions)))


def _tell(model_type: str, tuned: Found) -> None:
    print(
        f"tuned {model_type}: {tuned.trials} trials, "
        f"validation objective {tuned.score:.4f}: {json.dumps(tuned.parameters)}",
        flush=True,
    )


def _print_table(rows: Mapping[str, Any], selected: str, *, show_published: bool) -> None:
    heading = "HR@10 / NDCG@10 on test"
    print(f"\n{'model':<22}{heading:<38}{'refitted on train + validation':<38}fit")
    if show_published:
        for name, (hit, ndcg) in PUBLISHED_ON_BEAUTY.items():
            print(f"{name + ' (published)':<22}{hit:.4f} / {ndcg:.4f}")
    for name, row in rows.items():
        mark = " <- selected" if name == selected else ""
        print(
            f"{name:<22}{_cell(row['train_only']):<38}{_cell(row['refit']):<38}"
            f"{row['fit_seconds']:.1f} s{mark}"
        )


def _cell(metrics: Mapping[str, float]) -> str:
    hit, low, high = (metrics[f"recall_at_10{end}"] for end in ("", "_low", "_high"))
    return f"{hit:.4f} / {metrics['ndcg_at_10']:.4f} [{low:.4f}-{high:.4f}]"


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="the file of sequences")
    parser.add_argument("--budget", type=float, default=600, help="seconds of tuning in all")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    parser.add_argument("--seed", type=int, default=42)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    try:
        main()
    except (InputError, OSError) as error:
        sys.exit(f"error: {error}")
