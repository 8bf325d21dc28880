"""The one place that knows which model is being served, and how another takes its place."""

import logging
import threading

from recsys.registry import Entry, Registry, RegistryError
from recsys.settings import Settings
from serving.config import ServingConfig
from serving.loading import load_snapshot, sources, with_current_catalogue
from serving.snapshot import Snapshot
from serving.warmup import recent_users, replay

logger = logging.getLogger(__name__)


class Engine:
    """Holds the snapshot in service; `prepare` loads another one, `commit` swaps it in.

    Reading `snapshot` needs no lock: it is one reference, replaced by one assignment.
    """

    def __init__(self, settings: Settings, config: ServingConfig) -> None:
        self._settings = settings
        self._config = config
        self._preparing = threading.Lock()
        self._prepared: Snapshot | None = None
        self.snapshot: Snapshot | None = None

    @property
    def model_id(self) -> str | None:
        """The model in service."""
        snapshot = self.snapshot
        return None if snapshot is None else snapshot.model_id

    def prepare(self, model_id: str) -> None:
        """Load and check the registered model `model_id`, beside the one in service.

        Raises
        ------
        InputError
            If the registry does not have it, or its artefact is not sound.
        """
        with self._preparing:
            folder = Registry(self._settings).folder(find_entry(self._settings, model_id))
            loaded = load_snapshot(self._settings, folder, model_id, self._config)
            users = recent_users(self._settings.service_db, self._config.warmup_requests)
            replay(loaded, users, self._config.warmup_seconds)
            self._prepared = loaded

    def commit(self, model_id: str) -> None:
        """Serve the prepared model. Raises `RuntimeError` if `model_id` is not the prepared one."""
        with self._preparing:
            if self._prepared is None or self._prepared.model_id != model_id:
                raise RuntimeError(f"model {model_id} is not prepared")
            self.snapshot, self._prepared = self._prepared, None
        logger.info("Model in service | model_id=%s", model_id)

    def follow_catalogue(self) -> bool:
        """Take over the shop's newest catalogue and embeddings, if there are newer ones.

        Returns whether there were. The model stays the same.
        """
        with self._preparing:
            snapshot = self.snapshot
            if snapshot is None or sources(self._settings, snapshot.artifact) == snapshot.sources:
                return False
            fresh = with_current_catalogue(self._settings, snapshot, self._config)
            if not fresh.catalogue.available.any():
                logger.error("The new catalogue has none of the model's products; not taken over")
                return False
            self.snapshot = fresh
        logger.info("New catalogue in service | source=%s", fresh.catalogue.source)
        return True

    def abort(self) -> None:
        """Forget the prepared model."""
        with self._preparing:
            self._prepared = None


def find_entry(settings: Settings, model_id: str | None) -> Entry:
    """The registry's entry of `model_id`, or of the current best.

    Raises `RegistryError` if there is none, or the registry is damaged.
    """
    registry = Registry(settings)
    if model_id is not None:
        return registry.get(model_id)
    best = registry.current_best()
    if best is None:
        raise RegistryError("the registry has selected no model yet; run model_training")
    return best
