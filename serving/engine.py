"""The one place that knows which model is being served, and how another takes its place."""

import asyncio
import ctypes
import gc
import logging
import threading
import time
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from recsys.errors import InputError
from recsys.registry import Entry, Registry, RegistryError
from recsys.request_log import recent_users
from recsys.settings import Settings
from serving.config import ServingConfig
from serving.coordination import Reloaded, ReloadError, last_served, remember_served
from serving.loading import load_snapshot, replay, sources, with_current_catalogue
from serving.recommending import Snapshot

logger = logging.getLogger(__name__)

# Recent requests replayed on a new model before it counts as ready, and for how long at most: the
# pages of its arrays are warm after some hundred, and a slow model must not hold a reload up.
_WARMUP_REQUESTS = 200
_WARMUP_SECONDS = 10.0


class Canary(NamedTuple):
    """A model that a share of the users get, in (0, 1]."""

    snapshot: Snapshot
    share: float


def settle_memory() -> None:
    """After loading: no more collections of what lives now, unused memory back to the system.

    Looking for cycles in a large catalogue stops every request for 100 ms, again and again, and
    finds none. An old snapshot has none: it goes when the last reference does."""
    gc.collect()
    gc.freeze()
    # Loading and making lists leaves a tenth of the worker's memory free but held.
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:  # glibc's own
        trim(0)


class Engine:
    """Holds the snapshot in service; `prepare` loads another one, `commit` swaps it in. Reading
    `snapshot` needs no lock: it is one reference, replaced by one assignment."""

    def __init__(self, settings: Settings, config: ServingConfig) -> None:
        self._settings, self._config = settings, config
        self._preparing = threading.Lock()
        # Held for assignments only: workers swap on the event loop, which waits for no loading.
        self._swapping = threading.Lock()
        self._prepared: Snapshot | None = None
        self.snapshot: Snapshot | None = None
        self.canary: Canary | None = None

    @property
    def model_id(self) -> str | None:
        """The model in service."""
        snapshot = self.snapshot
        return None if snapshot is None else snapshot.model_id

    def prepare(self, model_id: str, *, starting: bool = False) -> None:
        """Load and check the registered model `model_id`, beside the one in service; with the last
        good catalogue if the service is only `starting`. Raises `InputError` if the registry does
        not have it, or its artefact is not sound."""
        settings, config = self._settings, self._config
        with self._preparing:
            registry = Registry(settings)
            folder = registry.folder(registry.get(model_id))
            loaded = load_snapshot(settings, folder, model_id, config, starting=starting)
            replay(loaded, recent_users(settings.service_db, _WARMUP_REQUESTS), _WARMUP_SECONDS)
            settle_memory()
            with self._swapping:
                self._prepared = loaded

    def try_to_prepare(self, model_id: str, *, starting: bool = False) -> str | None:
        """`prepare`; why that failed, None if it did not."""
        try:
            self.prepare(model_id, starting=starting)
        except (InputError, OSError) as error:
            return str(error)
        except Exception as error:
            logger.exception("Loading failed | model_id=%s", model_id)
            return f"loading {model_id} failed with {type(error).__name__}: {error}"
        return None

    def for_user(self, user_id: str) -> Snapshot | None:
        """The snapshot that answers this user: the canary's for its share of users."""
        canary = self.canary
        if canary is None:
            return self.snapshot
        # Where the user stands between 0 and 1: the same in every worker, at any time.
        place = zlib.crc32(user_id.encode("utf-8", errors="replace")) / 2**32
        return canary.snapshot if place < canary.share else self.snapshot

    def commit(self, model_id: str, share: float | None = None) -> None:
        """Serve the prepared model to everybody, which ends a canary, or as the canary to a `share`
        of the users, the same ones all the time. Raises `RuntimeError` if another is prepared."""
        with self._swapping:
            if self._prepared is None or self._prepared.model_id != model_id:
                raise RuntimeError(f"model {model_id} is not prepared")
            prepared, self._prepared = self._prepared, None
            if share is None:
                self.snapshot, self.canary = prepared, None
            else:
                self.canary = Canary(prepared, share)
        logger.info("Model in service | model_id=%s, share=%s", model_id, share or "all")

    def end_canary(self) -> None:
        """Everybody gets the model in service again."""
        self.canary = None

    def follow_catalogue(self) -> bool:
        """Take over the shop's newest catalogue and embeddings for the same model; whether there
        were newer ones."""
        with self._preparing:
            snapshot = self.snapshot
            if snapshot is None or sources(self._settings, snapshot.artifact) == snapshot.sources:
                return False
            fresh = with_current_catalogue(self._settings, snapshot, self._config)
            if not fresh.catalogue.available.any():
                logger.error("The new catalogue has none of the model's products; not taken over")
                return False
            settle_memory()
            with self._swapping:
                if self.snapshot is not snapshot:
                    return False  # another model came in meanwhile; the next look is for it
                self.snapshot = fresh
        logger.info("New catalogue in service | source=%s", fresh.catalogue.source)
        return True

    def abort(self) -> None:
        """Forget the prepared model."""
        with self._swapping:
            self._prepared = None


def find_entry(settings: Settings, model_id: str | None) -> Entry:
    """The registry's entry of `model_id`, or of the current best. Raises `RegistryError` if there
    is none, or the registry is damaged."""
    registry = Registry(settings)
    if model_id is not None:
        return registry.get(model_id)
    best = registry.current_best()
    if best is None:
        raise RegistryError("the registry has selected no model yet; run model_training")
    return best


class Coordinator:
    """Brings a model into service everywhere, or nowhere; this one where there is one process."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.engine: Engine
        self._reloading = asyncio.Lock()

    async def join(self, engine: Engine) -> None:
        """Load the model that all serve into `engine`; requests may come when this returns."""
        self.engine = engine
        await asyncio.to_thread(start_with_any, self.settings, engine)

    async def reload(self, model_id: str | None, share: float | None = None) -> Reloaded:
        """Serve `model_id`, or the registry's current best; with `share`, to that share of the
        users only, beside the model in service. Raises `ReloadError`."""
        async with self._reloading:
            started, previous = time.monotonic(), self.engine.model_id
            try:
                wanted = find_entry(self.settings, model_id).model_id
                problem = await asyncio.to_thread(self.engine.try_to_prepare, wanted)
                if problem is None and share is None:
                    remember_served(self.settings, wanted)
            except (InputError, OSError) as error:
                raise ReloadError(str(error)) from error
            if problem is not None:
                raise ReloadError(problem)
            self.engine.commit(wanted, share)
            return Reloaded(wanted, previous, 1, time.monotonic() - started)

    async def end_canary(self) -> None:
        """Serve the model in service to everybody again."""
        async with self._reloading:
            self.engine.end_canary()


def start_with_any(settings: Settings, engine: Engine) -> None:
    """Serve the first of `_candidates` that is sound, else none."""
    tried = set()
    try:
        for model_id in _candidates(settings):
            if model_id in tried:
                continue
            tried.add(model_id)
            # Any model is better than none: try the next one, whatever is wrong with this.
            problem = engine.try_to_prepare(model_id, starting=True)
            if problem is None:
                return engine.commit(model_id)
            logger.error("Cannot start with this model | model_id=%s, %s", model_id, problem)
    except (InputError, OSError) as error:
        logger.info("The registry offers no model | reason=%s", error)


def _candidates(settings: Settings) -> Iterator[str]:
    """The model that was served last, the registry's current best if that is not held after a
    rollback, then the active ones that passed their gate, the newest first: of the same source
    alone, as one of the sample shop would recommend what this shop does not sell."""
    registry, last = Registry(settings), last_served(settings)
    if last is not None:
        yield last
    best = registry.current_best()
    if best is not None and best.status != "held":
        yield best.model_id
    wanted = last or (best and best.model_id)
    source = registry.source_of(wanted) if wanted else None
    for entry in registry.list():
        passed = entry.status == "active" and entry.baseline_comparison.get("passes")
        if passed and source in (None, registry.source_of(entry.model_id)):
            yield entry.model_id
