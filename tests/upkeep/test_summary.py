from pathlib import Path

from recsys.config import load_config
from recsys.upkeep import MaintenanceConfig, job


def test_the_summary_adds_up_all_steps():
    models = {"models": {"count": 1, "freed_bytes": 10, "examples": ["a"]}}
    logs = {"task logs": {"count": 3, "freed_bytes": 5, "examples": ["b"]}}
    assert job.summarise([models, {}, logs], dry_run=True) == {
        "dry_run": True,
        "freed_bytes": 15,
        "removed": models | logs,
    }


def test_the_file_states_every_default(settings):
    assert load_config(settings, MaintenanceConfig) == MaintenanceConfig()
    text = Path(settings.config_file("maintenance.yaml")).read_text()
    for name in MaintenanceConfig.model_fields:
        assert f"\n{name}:" in text
