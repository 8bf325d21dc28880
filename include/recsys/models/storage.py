"""How a model's arrays and parameters lie in a folder, and what is refused when reading them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from recsys.arrays import AnyArray
from recsys.errors import InputError

PARAMETERS_FILE = "parameters.json"


class ArtifactError(InputError):
    """A stored model is missing, incomplete, changed or not sound; the text says which file."""


def write_array(folder: Path, name: str, array: AnyArray) -> None:
    """Write ``<folder>/<name>.npy``. Raises `ArtifactError` for NaN, infinities or objects."""
    if array.dtype.kind not in "fiub":
        raise ArtifactError(f"{name}: arrays of type {array.dtype} are not stored")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ArtifactError(f"{name}: the array holds NaN or infinite values")
    np.save(folder / f"{name}.npy", np.ascontiguousarray(array), allow_pickle=False)


def read_array(folder: Path, name: str, dtype: type[np.generic], dimensions: int) -> AnyArray:
    """Memory-map ``<folder>/<name>.npy``. Raises `ArtifactError` if it is missing, unreadable, or
    of another type or shape."""
    path = folder / f"{name}.npy"
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise ArtifactError(f"{path}: the file is missing") from None
    except (OSError, ValueError, EOFError) as error:
        raise ArtifactError(f"{path}: is not a readable array: {error}") from error
    if array.dtype != np.dtype(dtype) or array.ndim != dimensions:
        wanted = f"{np.dtype(dtype)} with {dimensions} dimensions"
        raise ArtifactError(f"{path}: expected {wanted}, found {array.dtype} with {array.ndim}")
    return np.asarray(array)


def write_parameters(folder: Path, parameters: Mapping[str, Any]) -> None:
    text = json.dumps(dict(parameters), ensure_ascii=False, indent=2, allow_nan=False)
    (folder / PARAMETERS_FILE).write_text(text + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """The JSON in `path`. Raises `ArtifactError` if it is missing or not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ArtifactError(f"{path}: the file is missing") from None
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path}: cannot be read as JSON: {error}") from error


def read_parameters(folder: Path) -> dict[str, Any]:
    content = read_json(folder / PARAMETERS_FILE)
    if not isinstance(content, dict):
        raise ArtifactError(f"{folder / PARAMETERS_FILE}: expected a mapping")
    return content
