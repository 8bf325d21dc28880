"""Upkeep of the state root: what may go is removed, what is in use or referred to stays."""

from pydantic import Field

from recsys.config import ConfigModel


class ModelRetention(ConfigModel):
    """How many models of each type stay, and for how many days every one."""

    keep_per_type: int = Field(default=5, ge=1)
    keep_days: float = Field(default=30, ge=0)


class AirflowRetention(ConfigModel):
    """Days that Airflow's own records and task logs stay; whether the job cleans the records."""

    keep_days: float = Field(default=90, ge=7)
    clean_metadata: bool = True


class MaintenanceConfig(ConfigModel):
    """Days, unless the name says otherwise; every key is explained in the file."""

    FILE = "maintenance.yaml"

    models: ModelRetention = ModelRetention()
    keep_report_days: float = Field(default=365, gt=0)
    keep_log_days: float = Field(default=90, gt=0)
    airflow: AirflowRetention = AirflowRetention()
