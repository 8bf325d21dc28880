"""Files of data, caches, models and notes that are missing, torn or foreign, and then it is night.

    python -m benchmarks.drills.damaged_nights

Survived: the job does its work without them and makes them again, or ends with a sentence that
names the file; what was published before is published still, and whole; nothing is half done.
"""

import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from benchmarks.drills._damages import DAMAGES
from benchmarks.drills._table import Attacks
from recsys.content.job import build_embeddings
from recsys.data.sample import write_sample_shop
from recsys.data.staging import append_events
from recsys.data.versions import current_version, list_versions
from recsys.drift.job import alert_on_drift, detect_drift, reason_to_retrain
from recsys.errors import InputError
from recsys.health.data import check_data_health
from recsys.health.model import check_model_health
from recsys.models.artifacts import load_artifact
from recsys.refresh.job import run_refresh
from recsys.registry import Registry
from recsys.schedule import DataInterval
from recsys.settings import Settings
from recsys.training.job import plan_training, select_best, train_model

END = datetime(2025, 6, 3, tzinfo=UTC)
DAY = timedelta(days=1)
EVENT = {"user_id": "late", "product_id": "P1", "rating": "5", "timestamp": "2025-06-01T10:00:00Z"}
# Folders of many files of a kind: one of a kind is enough.
SKIPPED = ("content_based_embeddings", "/model/tokenizer", "/model/1_", "config_sentence", ".lock")


def make_shop(settings: Settings) -> None:
    """A shop after its first night, with a model and a week's report."""
    write_sample_shop(settings, reviews=1_500, users=300, products=60, until=END.date() - DAY)
    write_tuning(settings)
    append_events(settings, [EVENT | {"event_id": "first"}])
    run_refresh(settings, DataInterval(END - DAY, END))
    build_embeddings(settings)
    train(settings)
    summary = detect_drift(settings, DataInterval(END - DAY, END))
    reason_to_retrain(settings, raised(summary), END)
    append_events(settings, [EVENT | {"event_id": "second"}])


def write_tuning(settings: Settings) -> None:
    folder = settings.home / "config"
    folder.mkdir(parents=True, exist_ok=True)
    text = "model_types: [item_knn]\ntuning: {seconds: 1, trials: 1}\n"
    (folder / "training.yaml").write_text(text, encoding="utf-8")


def raised(summary: dict) -> dict:
    return summary | {"overall_severity": "high", "raised": ["volume"]}


def refresh(settings: Settings) -> None:
    """Another night; the order that came last is in what it publishes."""
    before = list_versions(settings)
    summary = run_refresh(settings, DataInterval(END, END + DAY))
    assert summary["published"], summary
    version = current_version(settings)
    version.verify()
    assert "late" in set(version.interactions(["user_id"])["user_id"]), "an order is lost"
    assert version.version_id not in before or summary["strategy"] == "nothing_new"


def train(settings: Settings) -> None:
    """Another model, registered and whole."""
    [task] = plan_training(settings, ["item_knn"])
    trained = train_model(settings, task["model_type"], task["version_id"])
    select_best(settings, [trained])
    registry = Registry(settings)
    load_artifact(registry.folder(registry.get(trained["model_id"])))


def look_for_drift(settings: Settings) -> None:
    """Another report, its alert and its decision."""
    summary = raised(detect_drift(settings, DataInterval(END, END + DAY)))
    alert_on_drift(settings, summary)
    assert reason_to_retrain(settings, summary, END + 30 * DAY)


def look_after_health(settings: Settings) -> None:
    """Verdicts, whatever lies there."""
    for check in (check_data_health, check_model_health):
        verdict = check(settings)
        assert verdict["healthy"] or verdict["error"]


SOME = ("missing", "empty", "junk", "a folder in its place", "of somebody else")
MORE = (*SOME, "cut in half", "of the future", "a link to nowhere")
# What a job reads, and what is tried on it: some take seconds.
JOBS: dict[str, tuple[Callable[[Settings], None], tuple[str, ...], tuple[str, ...]]] = {
    "the nightly refresh": (
        refresh,
        ("data/comments", "data/versions", "data/processed", "data/staging", "data/raw/events",
         "data/quarantine", "data/embeddings/current"),
        MORE,
    ),
    "training": (
        train,
        ("artifacts/cf/registry.json", "artifacts/cf/registry.last_good.json",
         "artifacts/cf/tuning", "logs/training_metrics.db", "logs/cf", "data/processed"),
        SOME,
    ),
    "drift detection": (
        look_for_drift,
        ("reports/drift/last_retrain.json", "logs/service", "artifacts/cf/registry.json",
         "data/processed", "data/embeddings/current"),
        SOME,
    ),
    "the health check": (
        look_after_health,
        ("artifacts", "data/versions", "data/processed", "data/embeddings"),
        MORE,
    ),
}  # fmt: skip


def files_in(home: Path, places: tuple[str, ...]) -> Iterator[str]:
    for place in places:
        root = home / place
        found = [root] if root.is_symlink() or root.is_file() else sorted(root.rglob("*"))
        for path in found:
            name = str(path.relative_to(home))
            if not path.is_dir() and not any(part in name for part in SKIPPED):
                yield name


def is_named(said: str, file: str) -> bool:
    """Whether the sentence names the file, or the folder that it belongs to."""
    path = Path(file)
    return any(part in said for part in (path.name, path.parent.name, path.parent.parent.name))


def attack(attacks: Attacks, job: str, shop: Path, home: Path, file: str, name: str) -> None:
    shutil.rmtree(home, ignore_errors=True)
    shutil.copytree(shop, home, symlinks=True)
    settings = Settings(home)
    published = settings.processed.readlink()
    with attacks.attack(f"a file is damaged when it is time for {job}", f"{file}: {name}"):
        DAMAGES[name](home / file)
        said = None
        try:
            JOBS[job][0](settings)
        except (InputError, FileNotFoundError) as error:
            said = str(error)
        if said is not None:
            assert is_named(said, file), f"the file is not named: {said}"
            assert "Traceback" not in said
            if file != "data/processed":
                assert settings.processed.readlink() == published, "something else is published"
        leftover = [path for path in home.rglob("*.tmp") if ".tmp" not in file]
        assert not leftover, leftover


def main() -> int:
    """Print a row of docs/reliability.md for each kind; 1 if anything was not survived."""
    attacks = Attacks("damaged_nights")
    root = Path(tempfile.mkdtemp(prefix="recsys-drill-"))
    try:
        make_shop(Settings(root / "shop"))
        for job, (_, places, damages) in JOBS.items():
            for file in files_in(root / "shop", places):
                for name in damages:
                    attack(attacks, job, root / "shop", root / "night", file, name)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    return attacks.end()


if __name__ == "__main__":
    sys.exit(main())
