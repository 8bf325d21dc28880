"""Is the published data complete, unchanged and of use?"""

import json
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np

from recsys import schema
from recsys.alerting import Severity
from recsys.config import load_config
from recsys.data.versions import (
    PublishedVersion,
    current_version,
    is_of_the_future,
    published_folder,
)
from recsys.errors import InputError
from recsys.health.config import HealthConfig
from recsys.health.verdict import Finding, verdict
from recsys.settings import Settings, load_settings
from recsys.storage import StorageError

REQUIRED_FILES: Final = (
    schema.INTERACTIONS_FILE,
    schema.MATRIX_FILE,
    schema.MAPPINGS_FILE,
    schema.USER_METADATA_PICKLE,
)


def check_data_health(settings: Settings | None = None) -> dict[str, Any]:
    """Check the four documented files: there, readable, as the manifest says, fitting together.

    ``user_metadata.pkl`` is compared with its hash and not opened: nothing here unpickles.

    Returns ``healthy``, ``files`` (name -> whether it exists), and if there is a version
    ``version_id``, ``as_of``, ``newest_event`` and ``age_days`` (how long ago that was; None
    without any), ``interactions``, ``users``, ``items``; when unhealthy ``error`` and ``severity``.
    """
    settings = settings or load_settings()
    try:
        if published_folder(settings) is None:
            problem = "no data version was published yet; run data_refresh"
            return verdict([Finding(Severity.WARNING, problem)], files=_there(settings))
        version = current_version(settings)
    except (InputError, StorageError) as error:
        return verdict([Finding(Severity.CRITICAL, str(error))], files=_there(settings))
    files = _there(settings)
    newest = _newest_event(version.path / schema.INTERACTIONS_FILE)
    age = None if newest is None else (datetime.now(UTC) - newest).total_seconds() / 86_400
    details: dict[str, Any] = {
        "files": files,
        "version_id": version.version_id,
        "as_of": version.as_of.isoformat(),
        "newest_event": newest.isoformat() if newest else None,
        "age_days": None if age is None else round(age, 2),
    }
    problems = [
        Finding(Severity.CRITICAL, f"{settings.processed / name}: the file does not exist")
        for name, exists in files.items()
        if not exists
    ]
    if not problems:
        problems, sizes = _examine(version)
        details |= sizes
    if is_of_the_future(version.as_of):
        problem = (
            f"{version.version_id} ends at {version.as_of.isoformat()}, in the future: it was made "
            "under a wrong clock; the next data_refresh leaves it behind"
        )
        problems.append(Finding(Severity.CRITICAL, problem))
    limit = load_config(settings, HealthConfig).data.max_age_days
    if age is not None and age > limit:
        problem = (
            f"the newest review or purchase is {age:.1f} days old (at most {limit:g} are expected)"
        )
        problems.append(Finding(Severity.WARNING, problem))
    return verdict(problems, **details)


def _newest_event(path: Path) -> datetime | None:
    """When the last interaction of the file was; None without any, or if that cannot be read."""
    # Here, because the service imports this package for its watch and must not carry Arrow.
    from pyarrow import ArrowException, compute
    from pyarrow.parquet import ParquetFile

    try:
        with ParquetFile(path) as file:
            times = file.read([schema.TIMESTAMP]).column(0)
    except (OSError, ArrowException):
        return None  # `_examine` says what is wrong with the file
    newest: datetime | None = compute.max(times).as_py()
    return newest and newest.astimezone(UTC)


def _there(settings: Settings) -> dict[str, bool]:
    return {name: (settings.processed / name).is_file() for name in REQUIRED_FILES}


def _examine(version: PublishedVersion) -> tuple[list[Finding], dict[str, int]]:
    try:
        version.verify()
        sizes = _sizes(version.path)
    except (InputError, OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        problem = str(error) if isinstance(error, InputError) else f"{version.path}: {error!r}"
        return [Finding(Severity.CRITICAL, problem)], {}
    rows = version.manifest["files"][schema.INTERACTIONS_FILE]["rows"]
    matrix = (sizes.pop("matrix_rows"), sizes.pop("matrix_columns"))
    problems = []
    if sizes["interactions"] != rows:
        text = f"{schema.INTERACTIONS_FILE} has {sizes['interactions']} rows, not {rows}"
        problems.append(Finding(Severity.CRITICAL, text))
    if matrix != (sizes["users"], sizes["items"]):
        text = (
            f"{schema.MATRIX_FILE} is {matrix[0]} x {matrix[1]}, but {schema.MAPPINGS_FILE} maps"
            f" {sizes['users']} users and {sizes['items']} items"
        )
        problems.append(Finding(Severity.CRITICAL, text))
    if not rows:
        problems.append(Finding(Severity.CRITICAL, "the published version holds no interaction"))
    return problems, sizes


def _sizes(folder: Path) -> dict[str, int]:
    """Rows, users, items and shape, from as little of each file as tells them."""
    # Here, because the service imports this package for its watch and must not carry Arrow.
    from pyarrow.parquet import read_metadata

    mappings = json.loads((folder / schema.MAPPINGS_FILE).read_text(encoding="utf-8"))
    with np.load(folder / schema.MATRIX_FILE, allow_pickle=False) as matrix:
        rows, columns = (int(size) for size in matrix["shape"])
    metadata = read_metadata(folder / schema.INTERACTIONS_FILE)
    return {
        "interactions": int(metadata.num_rows),
        "users": len(mappings["user_to_idx"]),
        "items": len(mappings["item_to_idx"]),
        "matrix_rows": rows,
        "matrix_columns": columns,
    }
