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
from recsys.data import versions
from recsys.data.versions import PublishedVersion
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
    limit = load_config(settings, HealthConfig).data.max_age_days
    files = {name: (settings.processed / name).is_file() for name in REQUIRED_FILES}
    try:
        if versions.published_folder(settings) is None:
            problem = "no data version was published yet; run data_refresh"
            return verdict([Finding(problem, Severity.WARNING)], files=files)
        version = versions.current_version(settings)
    except (InputError, StorageError) as error:
        return verdict([Finding(str(error))], files=files)
    newest = _newest_event(version.path / schema.INTERACTIONS_FILE)
    age = None if newest is None else (datetime.now(UTC) - newest).total_seconds() / 86_400
    problems = [
        f"{settings.processed / name}: the file does not exist"
        for name, exists in files.items()
        if not exists
    ]
    sizes: dict[str, int] = {}
    if not problems:
        problems, sizes = _examine(version)
    if versions.is_of_the_future(version.as_of):
        problems.append(
            f"{version.version_id} ends at {version.as_of.isoformat()}, in the future: it was made "
            "under a wrong clock; the next data_refresh leaves it behind"
        )
    findings = [Finding(problem) for problem in problems]
    if age is not None and age > limit:
        expected = f"(at most {limit:g} are expected)"
        problem = f"the newest review or purchase is {age:.1f} days old {expected}"
        findings.append(Finding(problem, Severity.WARNING))
    return verdict(
        findings,
        files=files,
        version_id=version.version_id,
        as_of=version.as_of.isoformat(),
        newest_event=newest.isoformat() if newest else None,
        age_days=None if age is None else round(age, 2),
        **sizes,
    )


def _newest_event(path: Path) -> datetime | None:
    """When the last interaction of the file was; None without any, or if that cannot be read."""
    # Here and below: the service imports this package for its watch and must not carry Arrow.
    from pyarrow import ArrowException, compute
    from pyarrow.parquet import ParquetFile

    try:
        with ParquetFile(path) as file:
            times = file.read([schema.TIMESTAMP]).column(0)
    except (OSError, ArrowException):
        return None  # `_examine` says what is wrong with the file
    newest: datetime | None = compute.max(times).as_py()
    return newest and newest.astimezone(UTC)


def _examine(version: PublishedVersion) -> tuple[list[str], dict[str, int]]:
    """What is wrong with the files, and what is in them, from as little of each as tells that."""
    from pyarrow.parquet import read_metadata

    folder = version.path
    try:
        version.verify()
        mappings = json.loads((folder / schema.MAPPINGS_FILE).read_text(encoding="utf-8"))
        with np.load(folder / schema.MATRIX_FILE, allow_pickle=False) as matrix:
            shape = tuple(int(size) for size in matrix["shape"])
        found = int(read_metadata(folder / schema.INTERACTIONS_FILE).num_rows)
        users, items = len(mappings["user_to_idx"]), len(mappings["item_to_idx"])
    except (InputError, OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        return [str(error) if isinstance(error, InputError) else f"{folder}: {error!r}"], {}
    rows = version.manifest["files"][schema.INTERACTIONS_FILE]["rows"]
    problems = []
    if found != rows:
        problems.append(f"{schema.INTERACTIONS_FILE} has {found} rows, not {rows}")
    if shape != (users, items):
        problems.append(
            f"{schema.MATRIX_FILE} is {' x '.join(map(str, shape))}, but {schema.MAPPINGS_FILE} "
            f"maps {users} users and {items} items"
        )
    if not rows:
        problems.append("the published version holds no interaction")
    return problems, {"interactions": found, "users": users, "items": items}
