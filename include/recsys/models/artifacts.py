"""A trained model as a folder that a service can serve from, and nothing else.

``artifacts/cf/<type>/<model_id>/``::

    manifest.json        model id and type, data version, metrics, sha256 of every other file
    model/               the model type's own arrays and parameters
    item_ids.json        product ids in column order
    users/               ids.npy + offsets.npy: user ids in order of their bytes; queries.npy,
                         what each asks for, where a model reads that slowly (`RememberingModel`)
    histories/           what those users did (`recsys.models.base.Histories`); kinds.npy only
                         where not all of it is ratings, got.npy only where something was bought
                         again: when each was last
    popularity.npy       (items,) float32, the fallback's scores
    complements/         what is bought together (`recsys.models.complements`); older ones have none
    replenishment.npy    (items,) float32, days after which each is bought again, 0: never
    shown_products.jsonl what a recommendation shows (`recsys.data.shown`), in column order
    evaluation.json      all figures; learning_curve.png, a picture of the training

The folder is a bundle (`recsys.storage.bundle`). Arrays are NumPy files that are memory-mapped;
nothing is pickled."""

import bisect
import json
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence, Sized
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from recsys import schema
from recsys.arrays import Float32Array, Int64Array, UInt8Array
from recsys.data.shown import Columns, read_shown, write_shown
from recsys.errors import InputError
from recsys.models.base import Histories, Model, RememberingModel
from recsys.models.complements import Complements
from recsys.models.histories import most_active, take_users, user_rows
from recsys.models.kinds import CODE_OF, weight_of_codes
from recsys.models.model_types import model_class
from recsys.models.storage import ArtifactError, read_array, read_json, write_array
from recsys.publishing import atomic_folder
from recsys.storage.bundle import MANIFEST, Bundle, write_manifest

if TYPE_CHECKING:
    import pandas as pd

_ITEM_IDS = "item_ids.json"
_HISTORY_ARRAYS: dict[str, type[np.generic]] = {
    "indptr": np.int64,
    "items": np.int32,
    "confidence": np.float32,
    "weight": np.float32,
    "times": np.int64,
}
_KINDS = "kinds"
_OF_BUNDLE = ("files", "layout")  # of a manifest
_GOT = "got"
_QUERIES = "queries"
_COMPLEMENTS = "complements"
_REPLENISHMENT = "replenishment"


class UserIds:
    """User ids in order, in two memory-mapped arrays: `ids[7]`, `ids.position("443")`."""

    def __init__(self, text: UInt8Array, offsets: Int64Array) -> None:
        self._text, self._offsets = text, offsets

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __iter__(self) -> Iterator[str]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> str:
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        return self._bytes(index % len(self)).decode("utf-8")

    def position(self, user_id: str) -> int | None:
        """The number of `user_id`, or None when the model does not know the user."""
        key = user_id.encode("utf-8", errors="replace")
        found = bisect.bisect_left(range(len(self)), key, key=self._bytes)
        return found if found < len(self) and self._bytes(found) == key else None

    def _bytes(self, index: int) -> bytes:
        return bytes(self._text[self._offsets[index] : self._offsets[index + 1]])


class ArtifactFolder(Bundle):
    """The folder of a model, pinned, without loading it."""

    error = ArtifactError

    def __init__(self, folder: Path) -> None:
        try:
            super().__init__(folder)
        except FileNotFoundError:
            raise ArtifactError(f"{folder / MANIFEST}: the file is missing") from None


class Artifact(ArtifactFolder):
    """A loaded model with everything that serving needs.

    `item_ids` are product ids in column order, `user_ids` the known users in the order of their
    full `histories`, `popularity` ``(items,)`` is for users without one, `kind_weights`
    ``(kinds,)`` say what an event of each code of `recsys.models.kinds` weighs, `complements` what
    is bought together, None in an artefact of before that was learned. After `due_days`
    ``(items,)`` a product is bought again, NaN for never, and `got` ``(entries,)`` is when that of
    an entry of the histories last was, in seconds since 1970. The `manifest` has
    ``model_id, model_type, data_version, created_at, hyperparameters, metrics, sample_users,
    signal_weights, items, users, files``."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.item_ids: list[str] = read_item_ids(folder)
        self.histories, self.user_ids = read_histories(self), read_user_ids(folder)
        self.popularity: Float32Array = read_array(folder, "popularity", np.float32, 1)
        _check_sizes(self.item_ids, self.user_ids, self.histories, self.popularity)
        self.kind_weights = self._kind_weights()
        self.complements = self._complements()
        self.due_days = self._due_days()
        self.got = self.histories.times
        if f"histories/{_GOT}.npy" in self.files:
            self.got = read_array(folder / "histories", _GOT, np.int64, 1)
        if len(self.got) != len(self.histories.items):
            raise ArtifactError(f"{folder}: histories/{_GOT}.npy does not fit the histories")
        self.model: Model = model_class(str(self.manifest["model_type"])).load(folder / "model")
        if f"users/{_QUERIES}.npy" in self.files:
            self._remember()

    def _remember(self) -> None:
        queries = read_array(self.path / "users", _QUERIES, np.float32, 2)
        try:
            if not isinstance(self.model, RememberingModel):
                raise InputError(f"a model of type {self.model_type} has none")
            self.model.remember(self.histories, queries)
        except InputError as error:
            raise ArtifactError(f"{self.path}: users/{_QUERIES}.npy: {error}") from None

    @property
    def model_id(self) -> str:
        return str(self.manifest["model_id"])

    @property
    def model_type(self) -> str:
        return str(self.manifest["model_type"])

    def _complements(self) -> Complements | None:
        if not any(name.startswith(f"{_COMPLEMENTS}/") for name in self.files):
            return None
        return Complements.load(self.path / _COMPLEMENTS, len(self.item_ids))

    def _due_days(self) -> Float32Array:
        items = len(self.item_ids)
        if f"{_REPLENISHMENT}.npy" not in self.files:
            return np.full(items, np.nan, dtype=np.float32)
        days = read_array(self.path, _REPLENISHMENT, np.float32, 1)
        if len(days) != items or not (days >= 0).all():
            problem = f"has no days of {items} products"
            raise ArtifactError(f"{self.path}: {_REPLENISHMENT}.npy {problem}")
        return np.where(days > 0, days, np.float32(np.nan))

    def _kind_weights(self) -> Float32Array:
        stated = self.manifest.get("signal_weights", {})
        try:
            weights = weight_of_codes(stated)
        except (AttributeError, TypeError, ValueError):
            weights = np.array([np.nan], dtype=np.float32)
        if not ((weights >= 0) & (weights <= 1)).all():
            raise ArtifactError(f"{self.path}: signal_weights are not from 0 to 1: {stated!r}")
        return weights

    def history_of(self, user_id: str) -> Histories | None:
        """The history of one user, or None for a user that the model does not know."""
        position = self.user_ids.position(user_id)
        return None if position is None else take_users(self.histories, np.array([position]))

    def shown_products(self) -> Columns:
        """The products as they were when the model was trained, one row a column of the model:
        the columns of `schema.SHOWN_OF_PRODUCTS` that the version had.

        Read when asked for: who serves the shop's newer catalogue never needs them.

        Raises like `read_shown`, and `ArtifactError` if the rows are not in that order."""
        columns = read_shown(self.path)
        _check_products(columns.get(schema.PRODUCT, []), self.item_ids)
        return columns


def save_artifact(
    path: Path,
    *,
    model: Model,
    item_ids: Sequence[str],
    user_ids: Sequence[str],
    histories: Histories,
    popularity: Float32Array,
    products: "pd.DataFrame",
    manifest: Mapping[str, Any],
    attachments: Mapping[str, bytes] | None = None,
    complements: Complements | None = None,
    due_days: Float32Array | None = None,
    got: Int64Array | None = None,
) -> Path:
    """Write the folder `path`, all or nothing.

    `histories` belong to `user_ids`, which are sorted. `manifest` must hold ``model_id`` and
    ``data_version``; what `Artifact.manifest` lists besides is added.
    `attachments` are further files by name, for people to look at. The others are as `Artifact`
    has them; without `due_days` nothing is due, without `got` the time of an entry counts.

    Raises `ArtifactError` if something holds NaN or infinities, or the sizes do not agree, and
    `FileExistsError` if `path` exists."""
    _check_sizes(item_ids, user_ids, histories, popularity)
    _check_products(list(products[schema.PRODUCT]), item_ids)
    with atomic_folder(path) as folder:
        for name in ("model", "users", "histories"):
            (folder / name).mkdir()
        model.save(folder / "model")
        _write_user_ids(folder / "users", user_ids)
        queries = model.slow_queries(histories) if isinstance(model, RememberingModel) else None
        if queries is not None:
            write_array(folder / "users", _QUERIES, queries)
        for name in _HISTORY_ARRAYS:
            write_array(folder / "histories", name, getattr(histories, name))
        if histories.kinds.any():
            write_array(folder / "histories", _KINDS, histories.kinds)
        if got is not None and not np.array_equal(got, histories.times):
            write_array(folder / "histories", _GOT, got)
        if due_days is not None:
            write_array(folder, _REPLENISHMENT, np.nan_to_num(due_days, nan=0.0))
        if complements is not None:
            (folder / _COMPLEMENTS).mkdir()
            complements.save(folder / _COMPLEMENTS)
        write_array(folder, "popularity", np.asarray(popularity, dtype=np.float32))
        text = json.dumps(list(item_ids), ensure_ascii=False)
        (folder / _ITEM_IDS).write_text(text, encoding="utf-8")
        write_shown(folder / schema.SHOWN_FILE, products)
        for name, content in (attachments or {}).items():
            (folder / name).write_bytes(content)
        facts = {"model_type": model.model_type, "hyperparameters": model.hyperparameters}
        sizes = {"items": len(item_ids), "users": len(user_ids)}
        write_manifest(folder, {**facts, **sizes, **manifest})
        Artifact(folder).close()
    return path


def write_without(artifact: ArtifactFolder, users: Collection[str], path: Path) -> int:
    """Write the model of `artifact` anew to the folder `path`, all or nothing, as if it had never
    known `users`: their ids, histories, and places among ``sample_users`` are left out, which those
    take who had most after them. What was learned of many stays. Returns how many users went.
    Raises as `save_artifact`."""
    source, known, histories = artifact.path, read_user_ids(artifact.path), read_histories(artifact)
    gone = [at for one in users if (at := known.position(one)) is not None]
    kept = np.delete(np.arange(len(known)), gone)
    left = take_users(histories, kept)
    own = ("users", "histories")
    with atomic_folder(path) as folder:
        for name in artifact.files:
            if name.partition("/")[0] not in own:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source / name, folder / name)
        for name in own:
            (folder / name).mkdir()
        _write_user_ids(folder / "users", [known[at] for at in kept.tolist()])
        if f"users/{_QUERIES}.npy" in artifact.files:
            queries = read_array(source / "users", _QUERIES, np.float32, 2)
            write_array(folder / "users", _QUERIES, queries[kept])
        for name in _HISTORY_ARRAYS:
            write_array(folder / "histories", name, getattr(left, name))
        if left.kinds.any():
            write_array(folder / "histories", _KINDS, left.kinds)
        if f"histories/{_GOT}.npy" in artifact.files:
            got = read_array(source / "histories", _GOT, np.int64, 1)
            owners = user_rows(histories)
            write_array(folder / "histories", _GOT, got[~np.isin(owners, gone)])
        facts = {name: value for name, value in artifact.manifest.items() if name not in _OF_BUNDLE}
        facts["users"] = len(kept)
        if samples := facts.get("sample_users"):
            most = most_active(left, len(samples)).tolist()
            facts["sample_users"] = [known[at] for at in kept[most].tolist()]
        write_manifest(folder, facts)
        Artifact(folder).close()
    return len(gone)


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of the artefact in `path`. Raises `ArtifactError` if there is no sound one."""
    with ArtifactFolder(path) as folder:
        return folder.manifest


def verify_artifact(path: Path) -> None:
    """Check every file of the artefact. Raises `ArtifactError` that names the first bad one."""
    with ArtifactFolder(path) as folder:
        folder.verify()


def load_artifact(path: Path) -> Artifact:
    """Verify and load the artefact in `path`, which stays as long as the object lives. Raises
    `ArtifactError` if a file is missing, changed, of another shape than expected, or holds NaN."""
    with ArtifactFolder(path) as folder:
        folder.verify()
        return Artifact(path)


def read_histories(artifact: ArtifactFolder) -> Histories:
    """What the users of an artefact did. Raises `ArtifactError`."""
    folder, types = artifact.path / "histories", _HISTORY_ARRAYS.items()
    arrays = {name: read_array(folder, name, dtype, 1) for name, dtype in types}
    if f"histories/{_KINDS}.npy" in artifact.files:
        arrays[_KINDS] = read_array(folder, _KINDS, np.int8, 1)
    return Histories(**arrays)


def read_item_ids(folder: Path) -> list[str]:
    """The products of the artefact in `folder`. Raises `ArtifactError`."""
    ids: list[str] = read_json(folder / _ITEM_IDS)
    return ids


def read_user_ids(folder: Path) -> UserIds:
    """The users of the artefact in `folder`. Raises `ArtifactError`."""
    text = read_array(folder / "users", "ids", np.uint8, 1)
    return UserIds(text, read_array(folder / "users", "offsets", np.int64, 1))


def _check_sizes(
    item_ids: Sized, user_ids: Sized, histories: Histories, popularity: Float32Array
) -> None:
    items, scores = len(item_ids), len(popularity)
    if not items:
        raise ArtifactError("the model has no products")
    if scores != items:
        raise ArtifactError(f"{items} product ids and {scores} popularity scores: these must agree")
    if len(user_ids) != histories.users:
        raise ArtifactError(f"{len(user_ids)} user ids for {histories.users} histories")
    if not np.isfinite(popularity).all():
        raise ArtifactError("popularity: NaN or infinite scores")
    if len(histories.items) and not 0 <= histories.items.min() <= histories.items.max() < items:
        raise ArtifactError("histories: an entry is of a product that does not exist")
    _check_kinds(histories)


def _check_kinds(histories: Histories) -> None:
    kinds, entries = histories.kinds, len(histories.items)
    if len(kinds) != entries:
        raise ArtifactError(f"histories: {len(kinds)} kinds for {entries} entries")
    if entries and not 0 <= kinds.min() <= kinds.max() < len(CODE_OF):
        raise ArtifactError("histories: an entry is of a kind that does not exist")


def _check_products(product_ids: Sequence[str], item_ids: Sequence[str]) -> None:
    ids, rows = len(item_ids), len(product_ids)
    if rows != ids:
        raise ArtifactError(f"{ids} product ids and {rows} product rows: these must agree")
    if list(product_ids) != list(item_ids):
        raise ArtifactError("the product rows are not in the order of the product ids")


def _write_user_ids(folder: Path, user_ids: Sequence[str]) -> None:
    encoded = [user_id.encode("utf-8") for user_id in user_ids]
    if any(one >= after for one, after in pairwise(encoded)):
        raise ArtifactError("the user ids are not in order, or one of them stands twice")
    offsets = np.zeros(len(encoded) + 1, dtype=np.int64)
    np.cumsum([len(one) for one in encoded], out=offsets[1:])
    write_array(folder, "ids", np.frombuffer(b"".join(encoded), dtype=np.uint8))
    write_array(folder, "offsets", offsets)
