"""What models keep of customers; see `recsys.personal`."""

import contextlib
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final

import numpy as np
import pyarrow as pa

from recsys.errors import InputError
from recsys.models.artifacts import (
    ArtifactFolder,
    read_histories,
    read_item_ids,
    read_user_ids,
)
from recsys.models.histories import take_users
from recsys.models.kinds import CODE_OF
from recsys.models.model_types import MODEL_TYPES
from recsys.personal import Found, PersonalData, Record, Sought, Unread, place_of
from recsys.settings import Settings
from recsys.storage import open_store
from recsys.storage.bundle import MANIFEST

_KEY: Final = Settings.artifacts.as_posix()
_KINDS: Final = tuple(CODE_OF)


def find_in_models(settings: Settings, sought: Sought) -> Found:
    """Of each model the histories, and whether it is tried out with one of the customers."""
    store = open_store(settings)
    for family in sorted(MODEL_TYPES):
        for name in store.names(f"{_KEY}/{family}"):
            key = f"{_KEY}/{family}/{name}"
            try:
                with ArtifactFolder(store.fetch(key)) as artifact:
                    yield from _in_model(settings, sought, artifact)
            except (InputError, OSError) as error:
                yield Unread(key, str(error))


def id_columns(settings: Settings) -> Iterator[pa.ChunkedArray]:
    """Whom the models know, a column a model; what cannot be read knows nobody."""
    store = open_store(settings)
    for family in sorted(MODEL_TYPES):
        for name in store.names(f"{_KEY}/{family}"):
            with (
                contextlib.suppress(InputError, OSError),
                ArtifactFolder(store.fetch(f"{_KEY}/{family}/{name}")) as artifact,
            ):
                users = read_user_ids(artifact.path)
                yield pa.chunked_array([pa.array(list(users), pa.large_string())])


def _in_model(settings: Settings, sought: Sought, artifact: ArtifactFolder) -> Found:
    users, items = read_user_ids(artifact.path), read_item_ids(artifact.path)
    histories = read_histories(artifact)
    samples = sought.ids.intersection(map(str, artifact.manifest.get("sample_users") or []))
    for one in sorted(samples):
        place = place_of(settings, artifact.path / MANIFEST)
        yield Record(one, place, {"sample_user": "a deployment tries the model with them"})
    for one in sorted(sought.ids):
        if (position := users.position(one)) is not None:
            own = take_users(histories, np.array([position]))
            history = {
                "products": [items[item] for item in own.items.tolist()],
                "times": [datetime.fromtimestamp(at, UTC).isoformat() for at in own.times.tolist()],
                "kinds": [_KINDS[code] for code in own.kinds.tolist()],
                "confidence": own.confidence.tolist(),
            }
            yield Record(one, place_of(settings, artifact.path / "users" / "ids.npy"), history)


MODELS: Final = PersonalData(
    "histories in models",
    (f"{_KEY}/*/*/users/*.npy", f"{_KEY}/*/*/histories/*.npy", f"{_KEY}/*/*/{MANIFEST}"),
    "lists are made from what a customer had; a handful of customers try a model out",
    "with the model: the newest of each type, and those that are or were lately in service",
    find_in_models,
)
"""Without what forgets, which is for those to know who know the registry: `recsys.upkeep`."""
