"""A small cluster, and state roots that use it."""

import shutil

from recsys.settings import Settings

CONFIG = "executors: 2\ncores: 1\nmemory_mb: 1024\n"


def use_spark(settings: Settings, more: str = "") -> None:
    """Let this state root's refresh and ALS run on Spark, with `more` lines of ``spark.yaml``."""
    own = settings.home / "config"
    own.mkdir(parents=True, exist_ok=True)
    (own / "spark.yaml").write_text(CONFIG + more)
    for name in ("data.yaml", "training.yaml"):
        text = settings.config_file(name).read_text(encoding="utf-8")
        assert "engine: pandas" in text
        (own / name).write_text(text.replace("engine: pandas", "engine: spark"), encoding="utf-8")


def java_is_missing() -> bool:
    return shutil.which("java") is None
