"""``config/spark.yaml``."""

from pydantic import Field

from recsys.config import ConfigModel


class SparkConfig(ConfigModel):
    """See the comments in the file."""

    FILE = "spark.yaml"

    executors: int = Field(default=2, ge=1)
    cores: int = Field(default=1, ge=1)
    memory_mb: int = Field(default=1024, ge=512)
    driver_memory_mb: int = Field(default=1024, ge=512)
    piece_mb: float = Field(default=64, gt=0)
    rows_per_range: int = Field(default=500_000, ge=1)
