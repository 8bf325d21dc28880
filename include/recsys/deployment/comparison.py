"""What another model would change: the lists of customers under the one in service and under the
one to come, side by side, before anybody sees them."""

import json
import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np

from recsys.arrays import BoolArray, Int32Array, Int64Array
from recsys.data.versions import current_version
from recsys.errors import InputError
from recsys.evaluation import MOST_SLICE_LOSS
from recsys.merchandising.catalogue import Catalogue, build_catalogue
from recsys.models.artifacts import Artifact, load_artifact
from recsys.models.histories import take_users, user_rows
from recsys.models.kinds import not_offered
from recsys.models.lists import best_lists
from recsys.publishing import write_json
from recsys.registry import Registry, segment_loss
from recsys.settings import Settings

logger = logging.getLogger(__name__)

CUSTOMERS: Final = 1_000
LENGTH: Final = 10
MOVERS: Final = 10
"""Brands, categories and products that are named, of those that win and of those that lose."""
FOLDER: Final = "deployments"

_SEED: Final = 11
_AT_ONCE: Final = 100  # customers; of a catalogue of 100,000 their scores are 40 MB


def compare_models(settings: Settings, serving: str, coming: str) -> dict[str, Any]:
    """How the lists of `CUSTOMERS` whom both models know change, as plain JSON values: lists of
    `LENGTH` products that are sold and that they have not had, one of a family, without the shop's
    rules, which are the same for both.

    ``customers``; ``shared``, how many lists have 0, 1, ... of their products in common;
    ``first_changed``, the share whose first product is another; by ``brands``, ``categories`` and
    ``products`` what wins and loses places; ``segments`` with the recall of both, and ``loss``, the
    sentence of the one that loses too much. Raises `InputError` if a model is gone or damaged, or
    nobody is known to both."""
    registry = Registry(settings)
    entries = [registry.get(model_id) for model_id in (serving, coming)]
    before, after = (load_artifact(registry.folder(entry)) for entry in entries)
    with before, after:
        users = _shared_users(before, after)
        version = current_version(settings)
        columns = version.shown_products()
        catalogues = [
            build_catalogue(one.item_ids, columns, version.version_id) for one in (before, after)
        ]
        now = int(version.as_of.timestamp())
        old, new = (
            _lists(one, catalogue, users, now)
            for one, catalogue in zip((before, after), catalogues, strict=True)
        )
    shared = [len(set(one) & set(two)) for one, two in zip(old, new, strict=True)]
    changed = [one[:1] != two[:1] for one, two in zip(old, new, strict=True)]
    names = [_names_of(catalogue) for catalogue in catalogues]
    segments = [entry.training_info.get("segments") or {} for entry in entries]
    return {
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        **{"serving": serving, "model_id": coming, "data_version": version.version_id},
        "customers": len(users),
        "shared": np.bincount(shared, minlength=LENGTH + 1).tolist(),
        "first_changed": float(np.mean(changed)),
        **{
            what: _movers(old, new, [one[what] for one in names])
            for what in ("brands", "categories", "products")
        },
        "segments": {
            name: [one.get(name, {}).get("recall_at_10") for one in segments]
            for name in dict.fromkeys(name for one in segments for name in one)
        },
        "loss": segment_loss(entries[1], entries[0], MOST_SLICE_LOSS),
    }


def note_comparison(settings: Settings, serving: str, coming: str) -> dict[str, Any] | None:
    """Compare and write ``reports/deployments/COMING.json``; None if that cannot be done, which is
    logged: a deployment does not fail of it."""
    try:
        comparison = compare_models(settings, serving, coming)
        write_json(_path(settings, coming), comparison)
    except Exception:
        logger.exception("What %s would change cannot be told", coming)
        return None
    return comparison


def read_comparisons(settings: Settings) -> list[dict[str, Any]]:
    """All that were written, newest first; what cannot be read is left out."""
    found = []
    for path in (settings.reports / FOLDER).glob("*.json"):
        try:
            found.append(dict(json.loads(path.read_text(encoding="utf-8"))))
        except (OSError, ValueError, TypeError) as error:
            logger.warning("No comparison of ours | file=%s, error=%s", path, error)
    return sorted(found, key=lambda one: str(one.get("made_at")), reverse=True)


def mean_shared(comparison: dict[str, Any]) -> float:
    """How many products of a list stay, in the mean."""
    stay = sum(n * count for n, count in enumerate(comparison["shared"]))
    return float(stay / max(comparison["customers"], 1))


def in_words(comparison: dict[str, Any]) -> str:
    """What a person who approves should know, in Markdown."""
    customers, mean = comparison["customers"], mean_shared(comparison)
    lines = [
        f"Of {customers} customers' lists of {LENGTH}, {mean:.1f} products stay in the mean; "
        f"{comparison['first_changed']:.0%} get another first product."
    ]
    for what in ("brands", "categories"):
        for side in ("win", "lose"):
            moved = [f"{name} ({change:+.1%})" for name, *_, change in comparison[what][side][:3]]
            lines += [f"- {what} that {side}: {', '.join(moved)}"] if moved else []
    loss = comparison["loss"]
    lines.append(f"- **{loss}**" if loss else "- no segment loses too much")
    return "\n".join(lines)


def _path(settings: Settings, model_id: str) -> Path:
    return settings.reports / FOLDER / f"{model_id}.json"


def _shared_users(before: Artifact, after: Artifact) -> list[str]:
    """At most `CUSTOMERS` of those whom both know, of two models always the same."""
    order = np.random.default_rng(_SEED).permutation(len(before.user_ids)).tolist()
    found: list[str] = []
    for place in order:
        user = before.user_ids[place]
        if after.user_ids.position(user) is not None:
            found.append(user)
            if len(found) == CUSTOMERS:
                break
    if not found:
        models = f"{before.manifest['model_id']} and {after.manifest['model_id']}"
        raise InputError(f"{models} know no customer in common")
    return found


def _lists(
    artifact: Artifact, catalogue: Catalogue, users: Sequence[str], now: int
) -> list[list[str]]:
    """The product ids of each user's list."""
    known = catalogue.known
    families, sold = catalogue.families[:known], catalogue.available[:known]
    positions = np.array([artifact.user_ids.position(user) for user in users], dtype=np.int64)
    lists: list[list[str]] = []
    for start in range(0, len(positions), _AT_ONCE):
        found = _of_some(artifact, positions[start : start + _AT_ONCE], families, sold, now)
        lists += [[artifact.item_ids[item] for item in one] for one in found]
    return lists


def _of_some(
    artifact: Artifact, positions: Int64Array, families: Int32Array, sold: BoolArray, now: int
) -> list[list[int]]:
    asked = take_users(artifact.histories, positions)
    scores = np.array(artifact.model.score(asked, now), dtype=np.float32)
    scores[scores.max(axis=1) == scores.min(axis=1)] = artifact.popularity
    barred = not_offered(asked)
    had = np.zeros((len(positions), int(families.max()) + 1), dtype=np.bool_)
    had[user_rows(asked)[barred], families[asked.items[barred]]] = True
    scores[:, ~sold] = -np.inf
    scores[had[:, families]] = -np.inf
    items, _, counts = best_lists(scores, families, LENGTH)
    return [one[:count].tolist() for one, count in zip(items, counts.tolist(), strict=True)]


def _names_of(catalogue: Catalogue) -> dict[str, dict[str, str]]:
    """By product id: brand, category, and the product itself with its name."""
    ids = catalogue.item_ids
    return {
        "brands": dict(zip(ids, catalogue.brands, strict=True)),
        "categories": dict(zip(ids, catalogue.categories, strict=True)),
        "products": dict(zip(ids, catalogue.names, strict=True)),
    }


def _movers(
    old: list[list[str]], new: list[list[str]], names: Sequence[dict[str, str]]
) -> dict[str, list[list[Any]]]:
    """What ``win`` and ``lose`` most: ``[name, share of places before, after, change]``."""
    shares: list[dict[str, float]] = []
    for lists, named in zip((old, new), names, strict=True):
        found = [named.get(product) or product for one in lists for product in one]
        counted, counts = np.unique(np.array(found, dtype=object).astype(str), return_counts=True)
        whole = max(len(found), 1)
        shares.append(dict(zip(counted.tolist(), (counts / whole).tolist(), strict=True)))
    before, after = shares
    changes = {
        name: after.get(name, 0.0) - before.get(name, 0.0) for name in before.keys() | after.keys()
    }
    ranked = sorted(changes, key=lambda name: (-changes[name], name))
    rows = [[name, before.get(name, 0.0), after.get(name, 0.0), changes[name]] for name in ranked]
    return {
        "win": [row for row, name in zip(rows, ranked, strict=True) if changes[name] > 0][:MOVERS],
        "lose": [
            row
            for row, name in zip(reversed(rows), reversed(ranked), strict=True)
            if changes[name] < 0
        ][:MOVERS],
    }
