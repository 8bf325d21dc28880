"""Our metrics beside those of RecTools, on the same lists.

RecTools cannot be installed beside Airflow (it wants other versions of what both need), so it
stands in an environment of its own:

    python -m venv rectools && rectools/bin/pip install rectools==0.19.0
    python -m benchmarks.quality.rectools_check --python rectools/bin/python

Random factors rank random products for users with one to eight answers. We count ranks in blocks;
RecTools gets the lists of twenty that the same scores give, and the answers. Limit: every metric
differs by less than 1e-9 in the mean.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from recsys.arrays import Float32Array
from recsys.evaluation.metrics import CUTOFFS, list_metrics, metrics_per_user
from recsys.evaluation.ranking import HeldOut, rank_targets, unseen_scores
from recsys.models.base import Histories
from recsys.models.histories import histories_from_codes

LIMIT = 1e-9
LENGTH = max(CUTOFFS)
MOST_KNOWN, MOST_ANSWERS = 12, 8

_THEIRS = """
import json, sys
import pandas as pd
from importlib.metadata import version
from rectools.metrics import MRR, NDCG, CatalogCoverage, Recall
lists, answers = (pd.read_csv(path) for path in sys.argv[1:3])
items = range(int(sys.argv[3]))
metrics = {}
for k in json.loads(sys.argv[4]):
    metrics[f"recall_at_{k}"] = Recall(k=k).calc(lists, answers)
    metrics[f"ndcg_at_{k}"] = NDCG(k=k, divide_by_achievable=True).calc(lists, answers)
    metrics[f"mrr_at_{k}"] = MRR(k=k).calc(lists, answers)
metrics["coverage_at_10"] = CatalogCoverage(k=10, normalize=True).calc(lists, catalog=items)
print(json.dumps({"version": version("rectools"), "metrics": metrics}))
"""


class Factors:
    """Inner products of given vectors; the time of a question is the user's number."""

    def __init__(self, users: Float32Array, items: Float32Array) -> None:
        self.users, self.items = users, items

    def score(self, histories: Histories, now: np.ndarray) -> Float32Array:
        return self.users[now] @ self.items.T


def main() -> None:
    options = _parse()
    model, questions = _input(options.users, options.items)
    ours = {
        name: float(values.mean())
        for name, values in metrics_per_user(rank_targets(model, questions)).items()
    }
    purchases = np.ones(options.items, dtype=np.int64)
    ours["coverage_at_10"] = list_metrics(model, questions, purchases)["coverage_at_10"]
    theirs = _ask_rectools(options.python, model, questions, options.items)
    print(
        f"input: {questions.users:,} users x {options.items:,} items, "
        f"{len(questions.targets):,} answers; RecTools {theirs['version']}"
    )
    print(f"{'metric':<16}{'ours':>14}{'RecTools':>14}{'difference':>14}{'ratio':>10}")
    worst = 0.0
    for name, value in ours.items():
        reference = theirs["metrics"][name]
        # Coverage is stored with six digits.
        difference = abs(value - round(reference, 6 if name.startswith("coverage") else 15))
        worst = max(worst, difference)
        print(f"{name:<16}{value:>14.9f}{reference:>14.9f}{difference:>14.1e}"
              f"{value / reference:>10.6f}")  # fmt: skip
    print(f"largest difference {worst:.1e} (limit {LIMIT:g})")
    if worst > LIMIT:
        sys.exit("the metrics differ")


def _input(users: int, items: int) -> tuple[Factors, HeldOut]:
    generator = np.random.default_rng(0)
    model = Factors(
        generator.normal(size=(users, 8)).astype(np.float32),
        generator.normal(size=(items, 8)).astype(np.float32),
    )
    known = generator.integers(1, MOST_KNOWN + 1, users)
    answers = generator.integers(1, MOST_ANSWERS + 1, users)
    # Answers come from the better half of what is new to a user, so that lists hold some of them.
    chosen = [generator.choice(items, size=count, replace=False) for count in known + 4 * answers]
    histories = histories_from_codes(
        np.repeat(np.arange(users), known),
        np.concatenate([one[:count] for one, count in zip(chosen, known, strict=True)]),
        np.zeros(known.sum(), dtype=np.int64),
        count=users,
    )
    targets = []
    for user, (one, had, count) in enumerate(zip(chosen, known, answers, strict=True)):
        new = one[had:]
        best = np.argsort(-(model.items[new] @ model.users[user]))
        targets.append(new[best[:count]])
    return model, HeldOut(
        histories=histories,
        now=np.arange(users),
        indptr=np.concatenate([[0], np.cumsum(answers)]),
        targets=np.concatenate(targets).astype(np.int32),
    )


def _ask_rectools(python: Path, model: Factors, questions: HeldOut, items: int) -> dict:
    scores = unseen_scores(model, questions, 0, questions.users)
    best = np.argsort(-scores, axis=1)[:, :LENGTH]
    users = np.arange(questions.users)
    lists = pd.DataFrame(
        {
            "user_id": np.repeat(users, LENGTH),
            "item_id": best.ravel(),
            "rank": np.tile(np.arange(1, LENGTH + 1), questions.users),
        }
    )
    answers = pd.DataFrame(
        {"user_id": np.repeat(users, np.diff(questions.indptr)), "item_id": questions.targets}
    )
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / name for name in ("lists.csv", "answers.csv")]
        for table, file in zip((lists, answers), files, strict=True):
            table.to_csv(file, index=False)
        done = subprocess.run(
            [python, "-c", _THEIRS, *files, str(items), json.dumps(CUTOFFS)],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        )
    return json.loads(done.stdout.splitlines()[-1])


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--python", type=Path, required=True, help="Python of an environment with RecTools"
    )
    parser.add_argument("--users", type=int, default=2000)
    parser.add_argument("--items", type=int, default=400)
    return parser.parse_args()


if __name__ == "__main__":
    main()
