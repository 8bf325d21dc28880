"""Is the published data complete, unchanged and of use?"""

import json
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np

from recsys import schema
from recsys.config import load_config
from recsys.data import versions
from recsys.data.versions import PublishedVersion
from recsys.errors import InputError
from recsys.health.config import HealthConfig
from recsys.health.verdict import Finding, critical, verdict, warning
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
        if versions.published_folder(settings) is None:
            problem = "no data version was published yet; run data_refresh"
            return verdict([warning(problem)], files=_there(settings))
        version = versions.current_version(settings)
    except (InputError, StorageError) as error:
        return verdict([critical(str(error))], files=_there(settings))
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
    missing = [settings.processed / name for name, exists in files.items() if not exists]
    problems = [critical(f"{path}: the file does not exist") for path in missing]
    if not problems:
        problems, sizes = _examine(version)
        details |= sizes
    if versions.is_of_the_future(version.as_of):
        problem = (
            f"{version.version_id} ends at {version.as_of.isoformat()}, in the future: it was made "
            "under a wrong clock; the next data_refresh leaves it behind"
        )
        problems.append(critical(problem))
    limit = load_config(settings, HealthConfig).data.max_age_days
    if age is not None and age > limit:
        problem = f"the newest review or purchase is {age:.1f} days old"
        problems.append(warning(f"{problem} (at most {limit:g} are expected)"))
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
        sizes, shape = _sizes(version.path)
    except (InputError, OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        problem = str(error) if isinstance(error, InputError) else f"{version.path}: {error!r}"
        return [critical(problem)], {}
    rows = version.manifest["files"][schema.INTERACTIONS_FILE]["rows"]
    problems = []
    if sizes["interactions"] != rows:
        found = sizes["interactions"]
        problems.append(critical(f"{schema.INTERACTIONS_FILE} has {found} rows, not {rows}"))
    if shape != (sizes["users"], sizes["items"]):
        text = (
            f"{schema.MATRIX_FILE} is {shape[0]} x {shape[1]}, but {schema.MAPPINGS_FILE} maps"
            f" {sizes['users']} users and {sizes['items']} items"
        )
        problems.append(critical(text))
    if not rows:
        problems.append(critical("the published version holds no interaction"))
    return problems, sizes


def _sizes(folder: Path) -> tuple[dict[str, int], tuple[int, ...]]:
    """Rows, users and items, and the matrix's shape, from as little of each file as tells them."""
    # Here, because the service imports this package for its watch and must not carry Arrow.
    from pyarrow.parquet import read_metadata

    mappings = json.loads((folder / schema.MAPPINGS_FILE).read_text(encoding="utf-8"))
    with np.load(folder / schema.MATRIX_FILE, allow_pickle=False) as matrix:
        shape = tuple(int(size) for size in matrix["shape"])
    interactions = int(read_metadata(folder / schema.INTERACTIONS_FILE).num_rows)
    users, items = len(mappings["user_to_idx"]), len(mappings["item_to_idx"])
    return {"interactions": interactions, "users": users, "items": items}, shape
