"""From an artefact's folder to a snapshot that is known to work."""

import dataclasses
import functools
import logging
import random
import statistics
import time
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path

import numpy as np

from recsys import schema
from recsys.content.embeddings import current_embeddings, current_set_id
from recsys.data.shown import Columns, ShownError
from recsys.data.versions import (
    PublishedVersion,
    current_version,
    list_versions,
    open_version,
    published_folder,
)
from recsys.errors import InputError
from recsys.merchandising.catalogue import Catalogue, build_catalogue
from recsys.merchandising.exploring import Seen, explorable
from recsys.merchandising.kept_lists import KeptLists
from recsys.merchandising.placements import Placement
from recsys.merchandising.ranking import (
    NOTHING,
    NearestItems,
    Wanted,
    last_first,
    make_personal_lists,
)
from recsys.merchandising.recommending import (
    ContentIndex,
    Snapshot,
    history_of,
    made_in_advance,
    recommend,
)
from recsys.merchandising.rules import RuleSet
from recsys.merchandising.steered_lists import NO_CANDIDATES, more_candidates
from recsys.merchandising.steering import compile_steerings
from recsys.models.artifacts import Artifact, load_artifact
from recsys.models.base import InnerProductModel
from recsys.models.histories import user_range
from recsys.models.kinds import had
from recsys.models.newcomers import find_newcomers
from recsys.models.storage import ArtifactError
from recsys.settings import Settings

logger = logging.getLogger(__name__)

INDEX_MIN_ITEMS = 300_000
"""From so many products on an approximate index finds the best ones: below, looking at all of them
takes at most 14 ms."""

# A model that needs longer for one list is computed in a thread beside the event loop: handing over
# costs a tenth of that.
_INLINE_MILLISECONDS = 2.0
_KNOWN_USERS_CACHED = 65_536
_COMPOSED_AT_ONCE = 16  # users: a millisecond
_PAUSE_SECONDS = 0.002
_TRIAL_TOPK = 10
_TRIAL_USERS = 5
_TRIAL_CELLS = 100_000
_TRIAL_QUERY = "kem chống nắng"


def load_snapshot(
    settings: Settings,
    path: Path,
    model_id: str,
    list_seconds: float,
    *,
    starting: bool = False,
    beside: Iterable[Snapshot] = (),
) -> Snapshot:
    """Load, check and try out the model in the artefact folder `path`. A service that is `starting`
    serves nothing yet: it takes the last catalogue that is good. With those that it is served
    `beside` it shares catalogue and content, where their products are the same ones.

    Raises `ArtifactError` if a file is missing or changed, shapes do not agree, a score is not
    finite, or the model recommends nothing."""
    artifact = load_artifact(path)
    if artifact.model_id != model_id:
        raise ArtifactError(f"{path}: expected model {model_id}, found {artifact.model_id}")
    nearest = None
    many = len(artifact.item_ids) >= INDEX_MIN_ITEMS
    if many and isinstance(artifact.model, InnerProductModel):
        nearest = NearestItems(artifact.model, settings.artifacts / "indexes" / f"{model_id}.faiss")
    try:
        seen = sources(settings, artifact)
    except InputError as error:  # no reason not to serve
        logger.error("What is published cannot be told | reason=%s", str(error))
        seen = artifact.model_id, None
    catalogue, content = _shared(artifact, seen, beside)
    if catalogue is None:
        catalogue = (last_good_catalogue if starting else read_catalogue)(settings, artifact)
    loaded = Snapshot(
        model_id=model_id,
        model_type=artifact.model_type,
        artifact=artifact,
        position=functools.lru_cache(_KNOWN_USERS_CACHED)(artifact.user_ids.position),
        catalogue=catalogue,
        content=content or read_content(settings, catalogue),
        loaded_at=time.time(),
        nearest=nearest,
        sources=seen,
    )
    return _made_ready(loaded, list_seconds)


def with_current_catalogue(
    settings: Settings,
    snapshot: Snapshot,
    list_seconds: float,
    beside: Iterable[Snapshot] = (),
) -> Snapshot:
    """The same model with the shop's newest catalogue and embeddings, tried out; those that are
    served `beside` it may have them already. Raises as `load_snapshot`."""
    seen = sources(settings, snapshot.artifact)
    catalogue, content = _shared(snapshot.artifact, seen, beside)
    catalogue = catalogue or read_catalogue(settings, snapshot.artifact)
    content = content or read_content(settings, catalogue)
    fresh = dataclasses.replace(snapshot, catalogue=catalogue, content=content, sources=seen)
    return _made_ready(fresh, list_seconds)


def steered(
    snapshot: Snapshot,
    rules: RuleSet,
    placements: Mapping[str, Placement],
    now: datetime,
    seen: Seen | None = None,
) -> Snapshot:
    """The snapshot with lists as `rules` and `placements` ask for at `now`, which explore by what
    was `seen`; the same one if they are so."""
    catalogue, known = snapshot.catalogue, snapshot.steerings
    source = (catalogue, seen, rules, placements)
    before = known.source if isinstance(known.source, tuple) else (None,) * len(source)
    same = [one is other for one, other in zip(source, before, strict=True)]
    if all(same) and now.timestamp() < known.until:
        return snapshot
    explored = snapshot.explorable
    if not all(same[:2]):
        explored = seen and explorable(catalogue, seen, random.getrandbits(32))
    if catalogue.since is None and any(rule.products.asks_for_age for rule in rules.rules):
        catalogue = dataclasses.replace(catalogue, since=snapshot.since)
    compiled = compile_steerings(catalogue, rules.rules, placements, now, source=source)
    return dataclasses.replace(
        snapshot,
        steerings=compiled,
        explorable=explored,
        candidates=NO_CANDIDATES,
        kept=KeptLists(),
    )


def with_more_candidates(snapshot: Snapshot, seconds: float, in_all: float) -> Snapshot:
    """The snapshot with further candidates for the steered lists of known users, those that can be
    made in `seconds`. The same one if it has them all, or has taken so many seconds `in_all`."""
    wanted, before = snapshot.steerings.for_users, snapshot.candidates
    if snapshot.nearest is not None or not wanted or not before.left or before.seconds >= in_all:
        return snapshot
    artifact, catalogue = snapshot.artifact, snapshot.catalogue
    made = more_candidates(artifact, catalogue, snapshot.newcomers, wanted, before, seconds)
    return dataclasses.replace(snapshot, candidates=made)


def compose_ahead(
    snapshot: Snapshot, placements: Mapping[str, Placement], most: int, seconds: float
) -> None:
    """Let the snapshot keep the lists that users with candidates will ask for, at the length of
    each of the `placements` and `most` at most: what can be composed in `seconds`, with pauses, as
    requests beside it wait for the interpreter."""
    kept, candidates, until = snapshot.kept, snapshot.candidates, time.monotonic() + seconds
    if kept.ahead >= candidates.done or not kept.has_room:
        return
    wanted = set()
    for name in (*snapshot.steerings.by_placement, ""):
        steering, placement = snapshot.steerings.of(name), placements.get(name, Placement())
        if steering in candidates.of and placement.exclude_seen:
            wanted.add((steering, min(placement.length, most)))
    order = last_first(snapshot.artifact.histories)[: candidates.done]
    while kept.ahead < len(order) and kept.has_room and time.monotonic() < until:
        for position in order[kept.ahead : kept.ahead + _COMPOSED_AT_ONCE].tolist():
            for steering, topk in wanted:
                made_in_advance(snapshot, position, topk, steering, NOTHING)
        kept.ahead += _COMPOSED_AT_ONCE
        time.sleep(_PAUSE_SECONDS)


def _shared(
    artifact: Artifact, seen: tuple[str, str | None], beside: Iterable[Snapshot]
) -> tuple[Catalogue | None, ContentIndex | None]:
    """Catalogue and content of one of `beside` that are what this model would read: the products
    have to be the same, in the same order. The ids of the products are shared as well."""
    catalogue = content = None
    for other in beside:
        if other.sources[0] == seen[0] and other.artifact.item_ids == artifact.item_ids:
            catalogue, artifact.item_ids = other.catalogue, other.artifact.item_ids
            if other.sources[1] == seen[1] and other.content is not None:
                return catalogue, other.content
    return catalogue, content


def _made_ready(snapshot: Snapshot, list_seconds: float) -> Snapshot:
    """With what the model does not know in its place, tried out, and with the lists of known
    users."""
    snapshot = _with_newcomers(snapshot)
    inline = try_out(snapshot) <= _INLINE_MILLISECONDS
    lists = None
    if snapshot.nearest is None:  # else so many products that time is over after some hundred lists
        artifact, catalogue = snapshot.artifact, snapshot.catalogue
        lists = make_personal_lists(artifact, catalogue, snapshot.newcomers, list_seconds)
    return dataclasses.replace(snapshot, inline=inline, lists=lists)


def _with_newcomers(snapshot: Snapshot) -> Snapshot:
    artifact, catalogue, content = snapshot.artifact, snapshot.catalogue, snapshot.content
    newcomers = popularity = None
    if len(catalogue.item_ids) > catalogue.known:
        bought = artifact.histories.items[had(artifact.histories)]
        purchases = np.bincount(bought, minlength=catalogue.known)
        vectors = None if content is None else content.vectors
        traits = catalogue.traits._replace(vectors=vectors)
        newcomers = find_newcomers(traits, purchases, catalogue.recent_sales)
    if newcomers is not None:
        popularity = newcomers.popular(artifact.popularity)
    return dataclasses.replace(
        snapshot,
        newcomers=newcomers,
        nearest=snapshot.nearest and snapshot.nearest.beside(newcomers),
        placed_popularity=popularity,
    )


def sources(settings: Settings, artifact: Artifact) -> tuple[str, str | None]:
    """Names of the catalogue's data version (the model's id without one) and embedding set. Raises
    `InputError` if something else stands in the place of their links."""
    folder = published_folder(settings)
    name = folder.name if folder is not None else artifact.model_id
    return name, current_set_id(settings)


def try_out(snapshot: Snapshot) -> float:
    """Recommend for a few known users and for a stranger; median milliseconds of one list. Raises
    `ArtifactError` if a score is not finite, or a list that should have products is empty."""
    artifact, now = snapshot.artifact, int(time.time())
    known, items = len(artifact.user_ids), len(artifact.item_ids)
    if not snapshot.catalogue.is_usable:
        raise ArtifactError(f"{artifact.path}: none of its products is available in the shop")
    if known:
        users = min(known, max(1, _TRIAL_CELLS // items))
        scores = artifact.model.score(user_range(artifact.histories, 0, users), now)
        if scores.shape != (users, items):
            said = f"scores of shape {scores.shape} for {users} users and {items} products"
            raise ArtifactError(f"{artifact.path}: the model gives {said}")
        if not np.isfinite(scores).all():
            raise ArtifactError(f"{artifact.path}: the model gives scores that are not finite")
    rows = {number * (known - 1) // (_TRIAL_USERS - 1) for number in range(_TRIAL_USERS)}
    names = [artifact.user_ids[row] for row in sorted(rows)] if known else []
    wanted = Wanted(_TRIAL_TOPK, True, snapshot.catalogue.available, NOTHING)
    seconds = []
    by_model = not names
    for name in [*names, *names, ""]:
        started = time.perf_counter()
        made = recommend(snapshot, history_of(snapshot, name, (), [], now), wanted, now)
        seconds.append(time.perf_counter() - started)
        by_model = by_model or made.fallback_method == snapshot.own
        if not made.ranked.items:
            raise ArtifactError(f"{artifact.path}: a trial recommendation is empty")
    if not by_model:
        raise ArtifactError(f"{artifact.path}: the model has no opinion about users it knows")
    return statistics.median(seconds) * 1000


def read_catalogue(settings: Settings, artifact: Artifact) -> Catalogue:
    """The shop's newest catalogue, the model's products first; the model's own copy if nothing is
    published, or it has none of the model's products. Raises `ShownError` if it is damaged."""
    try:
        version = current_version(settings)
        products = _products_of(version)
        if not set(artifact.item_ids).isdisjoint(products[schema.PRODUCT]):
            return build_catalogue(artifact.item_ids, products, version.version_id)
        logger.warning(
            "The published catalogue shares no product with the model | %s", version.version_id
        )
    except ShownError:
        raise  # a damaged catalogue is not as good as none
    except (InputError, OSError) as error:
        # As text: an exception kept in a log record keeps the frames that hold the snapshot.
        logger.info("No published catalogue, using the model's own | reason=%s", str(error))
    return _own_catalogue(artifact)


def _products_of(version: PublishedVersion) -> Columns:
    """What the version shows of its products, and how well they sell. Raises `ShownError`."""
    products, sales = version.shown_products(), version.recent_sales()
    return products if sales is None else {**products, schema.RECENT_SALES: sales.tolist()}


def last_good_catalogue(settings: Settings, artifact: Artifact) -> Catalogue:
    """The catalogue of `read_catalogue`, or the newest one before it in which the model has
    products that can be recommended, or the model's own."""
    try:
        catalogue = read_catalogue(settings, artifact)
        if catalogue.is_usable:
            return catalogue
        reason = "none of the model's products is available in it"
    except (InputError, OSError) as error:
        reason = str(error)
    logger.error("The published catalogue cannot be served, looking for another | %s", reason)
    for version_id in reversed(list_versions(settings)):
        try:
            products = _products_of(open_version(settings, version_id))
        except (InputError, OSError) as error:
            logger.warning("No catalogue to start with | %s", str(error))
            continue
        catalogue = build_catalogue(artifact.item_ids, products, version_id)
        if catalogue.is_usable:
            break
    else:
        catalogue = _own_catalogue(artifact)
    logger.warning("Starting with an older catalogue | source=%s", catalogue.source)
    return catalogue


def _own_catalogue(artifact: Artifact) -> Catalogue:
    return build_catalogue(artifact.item_ids, artifact.shown_products(), artifact.model_id)


def read_content(settings: Settings, catalogue: Catalogue) -> ContentIndex | None:
    """The current text embeddings in the catalogue's order, None when there are none yet."""
    try:
        current = current_embeddings(settings)
        if current is not None and current.is_static:
            # What the encoder loads at its first query must not keep a customer waiting. Other
            # encoders load torch, which costs more memory than all the rest: only if asked.
            current.encode_query(_TRIAL_QUERY)
    except (InputError, OSError) as error:
        logger.warning("Text embeddings cannot be used | reason=%s", str(error))
        return None
    if current is None:
        return None
    vectors = current.vectors_of(catalogue.item_ids)
    # A product without text has a vector of zeros and is as good as none.
    return ContentIndex(vectors, np.any(vectors != 0, axis=1), current.encode_query)


def replay(snapshot: Snapshot, users: list[str], seconds: float) -> None:
    """Ask `snapshot` for all `users`, for so many seconds at most: pages of mapped arrays and
    caches are warm afterwards. Raises `ArtifactError` if an answer is empty."""
    wanted = Wanted(_TRIAL_TOPK, False, snapshot.catalogue.available, NOTHING)
    until, now = time.monotonic() + seconds, int(time.time())
    for user_id in users:
        if time.monotonic() > until:
            return
        history = history_of(snapshot, user_id, (), [], now)
        if not recommend(snapshot, history, wanted, now).ranked.items:
            said = "a recent request, asked again, is answered with nothing"
            raise ArtifactError(f"{snapshot.model_id}: {said}")
