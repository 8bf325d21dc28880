"""The one place that knows which model is being served, and how another takes its place."""

import asyncio
import ctypes
import gc
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from recsys.errors import InputError
from recsys.experiments.definitions import Side
from recsys.experiments.state import Experiments
from recsys.merchandising.exploring import Seen
from recsys.merchandising.placements import Placement
from recsys.merchandising.recommending import Snapshot
from recsys.merchandising.rules import RuleSet
from recsys.merchandising.served_model import last_served, remember_served
from recsys.merchandising.snapshots import (
    compose_ahead,
    load_snapshot,
    replay,
    sources,
    steered,
    with_current_catalogue,
    with_more_candidates,
)
from recsys.personal import PSEUDONYM
from recsys.registry import Entry, Registry, RegistryError
from recsys.request_log import recent_users
from recsys.settings import Settings
from serving.config import ServingConfig
from serving.coordination import (
    Followed,
    Reloaded,
    ReloadError,
)
from serving.trials import (
    InTrial,
    Trials,
    put_in_trial,
    read_trials,
    remember_trials,
    trials_at_start,
)

logger = logging.getLogger(__name__)

# Recent requests replayed on a new model before it counts as ready, and for how long at most: the
# pages of its arrays are warm after some hundred, and a slow model must not hold a reload up.
_WARMUP_REQUESTS = 200
_WARMUP_SECONDS = 10.0
# At a time: the next look at the rules waits for it.
_CANDIDATES_SECONDS = 5.0
_NO_PLACEMENTS: dict[str, Placement] = {}
_COMPOSED_SECONDS = 2.0


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


def _to_warm_up(loaded: Snapshot, requests: Path) -> list[str]:
    """Who asked last; for those whom the log does not name, as many known users spread over all."""
    recent = recent_users(requests, _WARMUP_REQUESTS)
    named = [user for user in recent if not PSEUDONYM.fullmatch(user)]
    known, hidden = loaded.artifact.user_ids, len(recent) - len(named)
    spread = {len(known) * number // hidden for number in range(hidden)} if len(known) else ()
    return named + [known[position] for position in sorted(spread)]


class Engine:
    """Holds the snapshot in service; `prepare` loads another one, `commit` swaps it in. The same
    for the models of experiments, `prepare_trials` and `commit_trials`. Reading `snapshot` and
    `in_trial` needs no lock: each is one reference, replaced by one assignment."""

    def __init__(
        self,
        settings: Settings,
        config: ServingConfig,
        placements: Callable[[], Mapping[str, Placement]] = lambda: _NO_PLACEMENTS,
        rules: Callable[[], RuleSet] = RuleSet,
        seen: Callable[[], Seen | None] = lambda: None,
    ) -> None:
        """`rules` and `placements` say which ones are in service, `seen` what was shown where lists
        explore."""
        self._settings, self._config = settings, config
        self._placements, self._rules, self._seen = placements, rules, seen
        self._list_seconds = config.personal_lists_seconds
        self._preparing = threading.Lock()
        # Held for assignments only: workers swap on the event loop, which waits for no loading.
        self._swapping = threading.Lock()
        self._prepared: Snapshot | None = None
        self._prepared_trials: dict[str, Snapshot] = {}
        self.snapshot: Snapshot | None = None
        self.in_trial = put_in_trial(Trials(), {}, {}, config.holdout_share)

    @property
    def model_id(self) -> str | None:
        """The model in service."""
        snapshot = self.snapshot
        return None if snapshot is None else snapshot.model_id

    @property
    def assigns(self) -> bool:
        """Whether somebody is in an experiment, or in the holdout."""
        return self.in_trial.assignment is not None

    def prepare(self, model_id: str, *, starting: bool = False) -> None:
        """Load and check the registered model `model_id`, beside the one in service; with the last
        good catalogue if the service is only `starting`. Raises `InputError` if the registry does
        not have it, or its artefact is not sound."""
        with self._preparing:
            in_trial = self.in_trial.snapshots.values()
            # A model that a side of an experiment has already: one copy is enough.
            loaded = next((one for one in in_trial if one.model_id == model_id), None)
            loaded = self._steered(loaded or self._load(model_id, starting=starting))
            settle_memory()
            with self._swapping:
                self._prepared = loaded

    def _load(
        self, model_id: str, *, starting: bool = False, beside: Sequence[Snapshot] = ()
    ) -> Snapshot:
        settings, registry = self._settings, Registry(self._settings)
        folder = registry.folder(registry.get(model_id))
        loaded = load_snapshot(
            settings,
            folder,
            model_id,
            self._config.personal_lists_seconds,
            starting=starting,
            beside=beside,
        )
        replay(loaded, _to_warm_up(loaded, settings.service_db), _WARMUP_SECONDS)
        return loaded

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

    def answering(
        self, unit: str | None, placement: str = ""
    ) -> tuple[Snapshot | None, Side | None]:
        """The snapshot that answers `unit` (the user in the one spelling, else the session), and on
        which side of which experiment it is."""
        _, assignment, snapshots, _ = self.in_trial
        if assignment is None or not unit:
            return self.snapshot, None
        side = assignment.assign(unit, placement)
        if side is None:
            return self.snapshot, None
        return snapshots.get(side) or self.snapshot, side

    def prepare_trials(self, trials: Trials) -> dict[str, str]:
        """Load the models of all sides that are not there yet. Returns those that are not sound,
        with the reason."""
        broken: dict[str, str] = {}
        with self._preparing:
            served = [one for one in (self.snapshot, *self.in_trial.snapshots.values()) if one]
            known = {one.model_id: one for one in served}
            loaded: dict[str, Snapshot] = {}
            for model_id in dict.fromkeys(trials.models.values()):
                if model_id in known:
                    loaded[model_id] = known[model_id]
                    continue
                beside = [*known.values(), *loaded.values()]
                try:
                    loaded[model_id] = self._steered(self._load(model_id, beside=beside))
                except (InputError, OSError) as error:
                    broken[model_id] = str(error)
                except Exception as error:
                    logger.exception("Loading failed | model_id=%s", model_id)
                    broken[model_id] = f"loading it failed with {type(error).__name__}: {error}"
            settle_memory()
            with self._swapping:
                self._prepared_trials = loaded
        return broken

    def commit_trials(self, trials: Trials, broken: Mapping[str, str]) -> None:
        """Let the `trials` run with the models that `prepare_trials` loaded. Sides whose models are
        `broken`, in whatever worker, get what is deployed."""
        with self._swapping:
            loaded, self._prepared_trials = self._prepared_trials, {}
            share = self._config.holdout_share
            self.in_trial = put_in_trial(trials, loaded, broken, share)
        names = ", ".join(one.name for one in trials.experiments) or "none"
        logger.info("Experiments in service | names=%s, broken=%s", names, dict(broken) or "none")

    def commit(self, model_id: str) -> None:
        """Serve the prepared model. Raises `RuntimeError` if another is prepared."""
        with self._swapping:
            if self._prepared is None or self._prepared.model_id != model_id:
                raise RuntimeError(f"model {model_id} is not prepared")
            self.snapshot, self._prepared = self._prepared, None
        logger.info("Model in service | model_id=%s", model_id)

    def follow_catalogue(self) -> bool:
        """Take over the shop's newest catalogue and embeddings for the same models, those that are
        prepared included: what is sold out must not come back with one; and models that were
        written anew without somebody. Whether there was anything newer."""
        with self._preparing:
            snapshot, in_trial = self.snapshot, self.in_trial
            prepared = (self._prepared, *self._prepared_trials.values())
            every = [one for one in (snapshot, *in_trial.snapshots.values(), *prepared) if one]
            current = [one for one in every if time.time() < one.catalogue.next_launch]
            fresh: dict[str, Snapshot] = {}
            for one in every:
                if one.model_id not in fresh:
                    # A version that came in the middle of the last look is news to some alone.
                    newer = self._renewed(one, [*fresh.values(), *current])
                    fresh.update({one.model_id: self._steered(newer)} if newer else {})
            if not fresh:
                return False
            settle_memory()
            with self._swapping:
                waiting, trials = self._prepared, self._prepared_trials
                self._prepared = waiting and fresh.get(waiting.model_id, waiting)
                self._prepared_trials = {m: fresh.get(m, one) for m, one in trials.items()}
            if not self._swap_in(fresh, snapshot, in_trial):
                return True
        for one in fresh.values():
            source = one.catalogue.source
            logger.info("New catalogue in service | model_id=%s, source=%s", one.model_id, source)
        return True

    def follow_rules(self) -> bool:
        """Steer the lists of all models by the rules and placements in service now, by those whose
        time has come, and by what was shown lately; whether anything changed. First every list is
        as they ask for, then the candidates for many are made in advance, then their lists."""
        changed = self._replace(self._steered)
        models = {one.model_id for one in self.in_trial.snapshots.values()} | {self.model_id}
        seconds, in_all = _CANDIDATES_SECONDS / len(models), self._list_seconds
        if self._replace(lambda one: with_more_candidates(one, seconds, in_all)):
            changed = True
            settle_memory()
        self._compose_ahead(_COMPOSED_SECONDS / len(models))
        return changed

    def _compose_ahead(self, seconds: float) -> None:
        """Compose lists of known users, of each model for so many `seconds`."""
        served = [one for one in (self.snapshot, *self.in_trial.snapshots.values()) if one]
        for snapshot in {one.model_id: one for one in served}.values():
            compose_ahead(snapshot, self._placements(), self._config.max_topk, seconds)

    def _replace(self, make: Callable[[Snapshot], Snapshot]) -> bool:
        """Serve what `make` makes of the snapshots in service, if it is another."""
        with self._preparing:
            snapshot, in_trial = self.snapshot, self.in_trial
            fresh: dict[str, Snapshot] = {}
            for one in (snapshot, *in_trial.snapshots.values()):
                if one is not None and one.model_id not in fresh:
                    made = make(one)
                    fresh.update({one.model_id: made} if made is not one else {})
            return bool(fresh) and self._swap_in(fresh, snapshot, in_trial)

    def _steered(self, snapshot: Snapshot) -> Snapshot:
        """The same snapshot if it is steered as it should be."""
        now = datetime.now(UTC)
        return steered(snapshot, self._rules(), self._placements(), now, self._seen())

    def _swap_in(
        self, fresh: Mapping[str, Snapshot], snapshot: Snapshot | None, in_trial: InTrial
    ) -> bool:
        """Serve the `fresh` ones, by model id, in place of those that were in service when they
        were made, if those still are."""
        with self._swapping:
            if self.snapshot is not snapshot or self.in_trial is not in_trial:
                return False  # other models came in meanwhile; the next look is for them
            self.snapshot = snapshot and fresh.get(snapshot.model_id, snapshot)
            sides = in_trial.snapshots.items()
            newer_sides = {side: fresh.get(one.model_id, one) for side, one in sides}
            self.in_trial = in_trial._replace(snapshots=newer_sides)
        return True

    def _renewed(self, snapshot: Snapshot, beside: Iterable[Snapshot]) -> Snapshot | None:
        """The same model with what is new: its artefact, a version, texts, or a product whose time
        has come. None if nothing is, or the catalogue has none of the model's products."""
        if self._lies_elsewhere(snapshot):
            return self._load(snapshot.model_id, beside=[snapshot, *beside])
        same = sources(self._settings, snapshot.artifact) == snapshot.sources
        if same and time.time() < snapshot.catalogue.next_launch:
            return None
        fresh = with_current_catalogue(
            self._settings, snapshot, self._config.personal_lists_seconds, beside
        )
        if fresh.catalogue.is_usable:
            return fresh
        logger.error(
            "The new catalogue has none of the model's products; not taken over | model_id=%s",
            snapshot.model_id,
        )
        return None

    def _lies_elsewhere(self, snapshot: Snapshot) -> bool:
        """Whether the model was written anew since it was loaded."""
        try:
            registry = Registry(self._settings)
            place = registry.place(registry.get(snapshot.model_id))
        except (InputError, OSError) as error:  # who loads the next one will say so
            logger.warning("Where a model lies is not known | reason=%s", error)
            return False
        return place != snapshot.artifact.path

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
        await asyncio.to_thread(start_trials, engine, trials_at_start(self.settings))

    async def reload(self, model_id: str | None) -> Reloaded:
        """Serve `model_id`, or the registry's current best, which ends a canary. Raises
        `ReloadError`."""
        reloaded = await self._reload(model_id)
        if self.engine.in_trial.trials.canary is not None:
            try:
                await self.end_canary()
            except ReloadError as error:  # a trial of what everybody may have by now
                logger.error("The canary could not be ended | reason=%s", error)
        return reloaded

    async def try_model(self, model_id: str, share: float) -> Reloaded:
        """Serve `model_id` to a `share` of the users, beside the model in service. Raises
        `ReloadError`, and then nobody gets it."""
        try:
            wanted = (await asyncio.to_thread(find_entry, self.settings, model_id)).model_id
            await asyncio.to_thread(_start_canary, self.settings, wanted, share)
        except (InputError, OSError) as error:
            raise ReloadError(str(error)) from error
        followed = await self.follow()
        if wanted in followed.broken:
            await self.end_canary()
            raise ReloadError(followed.broken[wanted])
        return Reloaded(wanted, self.engine.model_id, followed.workers, followed.seconds)

    async def end_canary(self) -> None:
        """Serve the model in service to everybody again. Raises `ReloadError`."""
        try:
            await asyncio.to_thread(_end_canary, self.settings)
        except (InputError, OSError) as error:
            raise ReloadError(str(error)) from error
        await self.follow()

    async def follow(self) -> Followed:
        """Let those experiments run, in all workers, that the state says. Raises `ReloadError`, and
        then everything stays as it is."""
        try:
            trials = await asyncio.to_thread(read_trials, self.settings)
        except (InputError, OSError) as error:
            raise ReloadError(str(error)) from error
        followed = await self._switch(trials)
        try:
            await asyncio.to_thread(remember_trials, self.settings, trials)
        except OSError as error:
            logger.error("The experiments could not be written down | reason=%s", error)
        return followed

    async def _reload(self, model_id: str | None) -> Reloaded:
        async with self._reloading:
            started, previous = time.monotonic(), self.engine.model_id
            try:
                wanted = find_entry(self.settings, model_id).model_id
                problem = await asyncio.to_thread(self.engine.try_to_prepare, wanted)
                if problem is None:
                    remember_served(self.settings, wanted)
            except (InputError, OSError) as error:
                raise ReloadError(str(error)) from error
            if problem is not None:
                raise ReloadError(problem)
            self.engine.commit(wanted)
            return Reloaded(wanted, previous, 1, time.monotonic() - started)

    async def _switch(self, trials: Trials) -> Followed:
        async with self._reloading:
            started = time.monotonic()
            broken = await asyncio.to_thread(self.engine.prepare_trials, trials)
            self.engine.commit_trials(trials, broken)
            return Followed(broken, 1, time.monotonic() - started)


def _start_canary(settings: Settings, model_id: str, share: float) -> None:
    Experiments(settings).start_canary(model_id, share, "service")


def _end_canary(settings: Settings) -> None:
    Experiments(settings).end_canary("service")


def start_trials(engine: Engine, trials: Trials, broken: Mapping[str, str] | None = None) -> None:
    """Let `trials` run in a worker that serves nobody yet; what is `broken` elsewhere is here."""
    engine.commit_trials(trials, engine.prepare_trials(trials) | dict(broken or {}))


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
