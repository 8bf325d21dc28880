"""The lists of all customers in one file, for the mailing tool.

Made by the same functions as the service's, some thousand customers at a time, so that memory
stays what it is. Parts lie beside the file until it is complete: an export that was killed goes on
where it was. Whoever imports this carries pyarrow."""

import json
import logging
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from threadpoolctl import threadpool_limits

from recsys.arrays import BoolArray, Float32Array, Int32Array
from recsys.errors import InputError
from recsys.locks import PipelineLock
from recsys.merchandising.catalogue import Catalogue
from recsys.merchandising.composing import compose
from recsys.merchandising.customers import (
    Block,
    blocks,
    live_events,
    load_served,
    placement_of,
    scored,
    standing_rules,
)
from recsys.merchandising.placements import UNTIL_DUE, Placement
from recsys.merchandising.ranking import NOTHING, Ranked, Wanted
from recsys.merchandising.reasons import sentences, steered, why_recommended
from recsys.merchandising.recommending import (
    Recommended,
    Snapshot,
    due_again,
    popular,
    recommend,
    sources_of,
)
from recsys.merchandising.steered_lists import steered_lists_of
from recsys.merchandising.steering import Steering
from recsys.models.base import Histories
from recsys.models.histories import user_range
from recsys.models.kinds import dismissed, not_offered
from recsys.models.lists import best_lists
from recsys.privacy import Forgotten, load_forgotten
from recsys.publishing import atomic_path, write_json
from recsys.served_lists import ServedList, id_text, new_id, write_segment
from recsys.settings import Settings

logger = logging.getLogger(__name__)

ENDPOINT: Final = "export_lists"
"""What the lists are recorded as."""

CUSTOMERS_AT_ONCE: Final = 20_000
_MOST_PRODUCTS: Final = 100
_STALE_SECONDS: Final = 6 * 3600.0
"""Parts that are older are not gone on with: customers have bought and dismissed since."""

SideOf = Callable[[str], tuple[str, str] | None]
"""The experiment and variant of a customer who gets what is popular, None for all others."""
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Wish:
    """What is asked for: lists of `length` products for `placement`, recorded as served or not,
    with reasons or not."""

    placement: str
    length: int
    record: bool
    explain: bool


def export_lists(
    settings: Settings,
    placement: str,
    to: Path,
    *,
    length: int | None = None,
    record: bool = True,
    explain: bool = False,
    holdout: SideOf = lambda _: None,
    tell: Tell = logger.info,
) -> dict[str, Any]:
    """Write the lists of all customers of the served model, and of those who came since, but not of
    those who are forgotten, to the Parquet file `to`, and return a summary. `length` is by default
    that of the `placement`.

    Raises `InputError` if there is no such placement or model, `to` cannot be the file, or another
    export runs."""
    chosen = placement_of(settings, placement)
    if chosen.endpoint != "recommend":
        said = f"its lists are of {chosen.endpoint}, not of recommend: they are for nobody alone"
        raise InputError(f"{placement}: {said}")
    length = chosen.length if length is None else length
    if not 1 <= length <= _MOST_PRODUCTS:
        raise InputError(f"--length: expected 1 to {_MOST_PRODUCTS} products, got {length}")
    if to.suffix != ".parquet" or to.is_dir():
        raise InputError(f"{to}: expected the name of a .parquet file")
    check_folder(to)
    with PipelineLock(ENDPOINT, settings) as lock:
        if not lock.acquired:
            raise InputError("Another export runs on this machine: wait until it is done")
        wish = Wish(placement, length, record, explain)
        # As in the service: for one history several threads only get in each other's way.
        with threadpool_limits(limits=1, user_api="blas"):
            return _export(settings, to, wish, chosen, holdout, tell)


def check_folder(to: Path) -> None:
    """Raises `InputError` if the folder of the file `to` is none: a mistyped one is not made."""
    if not to.parent.is_dir():
        raise InputError(f"{to}: there is no folder {to.parent}")


def _export(
    settings: Settings, to: Path, wish: Wish, placement: Placement, holdout: SideOf, tell: Tell
) -> dict[str, Any]:
    began = time.monotonic()
    snapshot = load_served(settings)
    basis = {
        **asdict(wish),
        "asked": placement.model_dump(mode="json"),
        "rules": standing_rules(settings).sha256,
        "model_id": snapshot.model_id,
        "sources": list(snapshot.sources),
    }
    folder = to.with_name(f".{to.name}.parts")
    plan = _plan(folder, basis, tell)
    wanted = Wanted(
        *(wish.length, placement.exclude_seen, snapshot.catalogue.available, NOTHING),
        steering=snapshot.steerings.of(wish.placement),
    )
    making = _Making(snapshot, wanted, holdout, plan.now)
    with live_events(settings) as database:
        makers = blocks(snapshot, database, CUSTOMERS_AT_ONCE, plan.now)
        if not makers:
            raise InputError(
                f"{snapshot.model_id}: the model knows no customers, and none came since"
            )
        parts = [folder / f"{number:06}.parquet" for number in range(len(makers))]
        done = 0
        for part, make in zip(parts, makers, strict=True):
            if not part.exists():
                with atomic_path(part) as temporary:
                    pq.write_table(making.table(make(), wish), temporary)
            done += pq.read_metadata(part).num_rows
            tell(f"{done:,} customers, {time.monotonic() - began:.0f} s")
    forgotten = load_forgotten(settings)
    done = _publish(parts, to, forgotten)
    if wish.record:
        for number, part in enumerate(parts):
            lists = list(_served(part, wish.placement, snapshot.model_id, forgotten))
            write_segment(settings, f"{plan.export_id}-{number:08}", lists)
    shutil.rmtree(folder)
    return {
        "file": str(to),
        "customers": done,
        "length": wish.length,
        "model_id": snapshot.model_id,
        "catalogue": snapshot.catalogue.source,
        "recorded": wish.record,
        "seconds": round(time.monotonic() - began, 1),
    }


class _Plan(NamedTuple):
    """An export under way: its name, and the moment (seconds since 1970) that its lists are of."""

    export_id: str
    now: int


def _plan(folder: Path, basis: Mapping[str, Any], tell: Tell) -> _Plan:
    """The plan whose parts are in `folder`, if it is of the same `basis` and not too old, else a
    new one."""
    file, wanted = folder / "plan.json", json.loads(json.dumps(basis))
    with suppress(FileNotFoundError):
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
            plan = _Plan(str(found["export_id"]), int(found["now"]))
            if found["basis"] == wanted and time.time() - plan.now < _STALE_SECONDS:
                tell("Going on with an export that was not finished")
                return plan
            tell("An unfinished export is too old, or of other rules, products or models: anew")
        except (ValueError, KeyError, TypeError):
            tell("What is left of an unfinished export is damaged: anew")
    shutil.rmtree(folder, ignore_errors=True)
    plan = _Plan(uuid.uuid4().hex, int(time.time()))
    write_json(file, {**plan._asdict(), "basis": wanted})
    return plan


class _Lists(NamedTuple):
    """Lists of a block: ``(users, length)`` columns of products, -1 behind the last; of each the
    letters of `recsys.served_lists.SOURCES`, its side if it is of the holdout, and what there is to
    say of those that the model did not simply fill."""

    items: Int32Array
    sources: list[str]
    sides: list[tuple[str, str] | None]
    made: dict[int, Recommended]
    own: str | None  # `Snapshot.own`

    def put(self, row: int, made: Recommended, catalogue: Catalogue) -> None:
        self.items[row, : len(made.ranked.items)] = made.ranked.items
        self.sources[row] = sources_of(catalogue, made)
        self.made[row] = made

    def of(self, row: int) -> Recommended:
        return self.made.get(row) or Recommended(Ranked(self.items[row].tolist(), []), self.own)


@dataclass(frozen=True)
class _Making:
    """Makes what is `wanted` from the `snapshot` for whoever asks at `now`."""

    snapshot: Snapshot
    wanted: Wanted
    holdout: SideOf
    now: int

    def table(self, block: Block, wish: Wish) -> pa.Table:
        """A row for each customer of the `block`."""
        lists, catalogue = self.lists(block), self.snapshot.catalogue
        counts = (lists.items >= 0).sum(axis=1)
        offsets = pa.array(np.append(0, np.cumsum(counts)), pa.int32())
        flat = pa.array(lists.items[lists.items >= 0])

        def shown(values: Sequence[Any], kind: pa.DataType) -> pa.ListArray:
            return pa.ListArray.from_arrays(offsets, pa.array(values, kind).take(flat))

        moment = time.time()
        ids = [id_text(new_id(moment)) if wish.record else None for _ in block.user_ids]
        columns = {
            "user_id": pa.array(block.user_ids, pa.string()),
            "recommendation_id": pa.array(ids, pa.string()),
            "product_ids": shown(catalogue.item_ids, pa.string()),
            "product_names": shown(catalogue.names, pa.string()),
            "prices": shown(catalogue.prices, pa.float64()),
            "fallback_method": pa.array(
                [lists.of(row).fallback_method for row in range(len(block.user_ids))], pa.string()
            ),
        }
        if wish.explain:
            vietnamese, english = self._reasons(block, lists)
            columns["reasons_vi"] = pa.array(vietnamese, pa.list_(pa.string()))
            columns["reasons_en"] = pa.array(english, pa.list_(pa.string()))
        columns["_sources"] = pa.array(lists.sources, pa.string())
        columns["_sides"] = pa.array(lists.sides, pa.list_(pa.string()))
        return pa.table(columns)

    def lists(self, block: Block) -> _Lists:
        """The lists of the customers of the `block`, many at a time where the model fills them."""
        users, snapshot = len(block.user_ids), self.snapshot
        items = np.full((users, self.wanted.topk), -1, dtype=np.int32)
        sides = [self.holdout(user) for user in block.user_ids]
        lists = _Lists(items, [""] * users, sides, {}, snapshot.own)
        held = np.array([side is not None for side in lists.sides], dtype=bool)
        due = self._due(block)
        full = held.copy()
        if snapshot.nearest is None:
            full = self._by_model(block, _barred(block, self.wanted, due), lists, held)
        for row in np.flatnonzero(~full | held).tolist():
            history = user_range(block.histories, row, row + 1)
            wanted = replace(self.wanted, due=due.get(row))
            lists.put(row, self._made(history, wanted, bool(held[row])), snapshot.catalogue)
        return lists

    def _made(self, history: Histories, wanted: Wanted, held: bool) -> Recommended:
        """One list alone."""
        if held:
            return popular(self.snapshot, history, wanted)
        return recommend(self.snapshot, history, wanted, self.now)

    def _due(self, block: Block) -> dict[int, Int32Array]:
        """What may return of what each customer had, by row, where that is asked for."""
        if self.wanted.exclude_seen != UNTIL_DUE:
            return {}
        due = {}
        for row, user in enumerate(block.user_ids):
            history, live = user_range(block.histories, row, row + 1), block.live.get(user, ())
            due[row] = due_again(self.snapshot, user, live, history, self.now)
        return due

    def _by_model(
        self, block: Block, barred: BoolArray, lists: _Lists, held: BoolArray
    ) -> BoolArray:
        """Put the `lists` together that the model fills; ``(users,)`` whose they are."""
        snapshot, wanted = self.snapshot, self.wanted
        catalogue, full = snapshot.catalogue, np.zeros(len(held), dtype=bool)
        for some, scores in scored(snapshot, block.histories, barred, self.now):
            if wanted.steering is not None:
                asked = (scores.max(axis=1) > -np.inf) & ~held[some]
                for row, ranked in self._composed(scores, wanted.steering, asked):
                    lists.put(some.start + row, Recommended(ranked, snapshot.own), catalogue)
                    full[some.start + row] = True
                continue
            found, _, counts = best_lists(scores, catalogue.families, wanted.topk)
            ok = (counts >= wanted.topk) & ~held[some]
            lists.items[some][ok] = found[ok]
            full[some] = ok
        if wanted.steering is None:
            new = np.any(lists.items >= catalogue.known, axis=1)
            plain = sources_of(catalogue, Recommended(Ranked([0] * wanted.topk, []), snapshot.own))
            for row in np.flatnonzero(full).tolist():
                lists.sources[row] = sources_of(catalogue, lists.of(row)) if new[row] else plain
        return full

    def _composed(
        self, scores: Float32Array, steering: Steering, asked: BoolArray
    ) -> Iterator[tuple[int, Ranked]]:
        """The rows of ``(users, items)`` `scores` that are `asked` for, with their lists."""
        content, topk = self.snapshot.content, self.wanted.topk
        vectors = None if content is None else content.vectors
        quick = steered_lists_of(steering, scores)
        for row in np.flatnonzero(asked).tolist():
            ranked = quick.first(row, topk, vectors)
            if ranked is None:  # its candidates do not tell
                mine = scores[row]
                ranked = compose(mine, mine > -np.inf, steering, topk, vectors=vectors)
            if ranked.items:
                yield row, ranked

    def _reasons(self, block: Block, lists: _Lists) -> tuple[list[list[str]], list[list[str]]]:
        snapshot, vietnamese, english = self.snapshot, [], []
        due = self._due(block)
        for row in range(len(block.user_ids)):
            history, made = user_range(block.histories, row, row + 1), lists.of(row)
            found = why_recommended(snapshot, history, made, self.now)
            asked = replace(self.wanted, due=due.get(row))
            make = partial(self._again, history, asked, lists.sides[row] is not None)
            found = steered(self.wanted.steering, made.ranked, found, make)
            told = [sentences(reason, snapshot.catalogue) for reason in found]
            vietnamese.append([text for text, _ in told])
            english.append([text for _, text in told])
        return vietnamese, english

    def _again(
        self, history: Histories, wanted: Wanted, held: bool, steering: Steering | None
    ) -> list[int]:
        return self._made(history, replace(wanted, steering=steering), held).ranked.items


def _barred(block: Block, wanted: Wanted, due: Mapping[int, Int32Array]) -> BoolArray:
    """``(entries,)`` whether what was done keeps the product out of the list."""
    histories = block.histories
    if not wanted.exclude_seen:
        return dismissed(histories)
    barred = not_offered(histories)
    for row, items in due.items():
        if len(items):
            mine = slice(histories.indptr[row], histories.indptr[row + 1])
            barred[mine] &= ~np.isin(histories.items[mine], items)
    return barred | dismissed(histories)


def _publish(parts: Sequence[Path], to: Path, forgotten: Forgotten) -> int:
    """Make the parts one file, without the columns that only we need, and without customers who
    were `forgotten` by then; how many there are."""
    customers = 0
    with atomic_path(to) as temporary:
        schema = pq.read_schema(parts[0])
        kept = [name for name in schema.names if not name.startswith("_")]
        with pq.ParquetWriter(temporary, pa.schema([schema.field(name) for name in kept])) as file:
            for part in parts:
                table = _of_the_others(pq.read_table(part), forgotten).select(kept)
                file.write_table(table)
                customers += table.num_rows
    return customers


def _of_the_others(table: pa.Table, forgotten: Forgotten) -> pa.Table:
    if not forgotten:
        return table
    theirs = forgotten.mask(table["user_id"].cast(pa.large_string()))
    return table.filter(pc.invert(theirs))


def _served(
    part: Path, placement: str, model_id: str, forgotten: Forgotten
) -> Iterator[ServedList]:
    names = ("recommendation_id", "user_id", "fallback_method", "product_ids", "_sources", "_sides")
    table = _of_the_others(pq.read_table(part, columns=list(names)), forgotten)
    rows = zip(*(table[name].to_pylist() for name in names), strict=True)
    for list_id, user, method, products, sources, side in rows:
        binary = bytes.fromhex(list_id.replace("-", ""))
        moment = int.from_bytes(binary[:6], "big") / 1000
        experiment, variant = side or ("", "")
        where = (placement, ENDPOINT, model_id, method, experiment, variant)
        if products:
            yield ServedList(binary, moment, user, None, *where, tuple(products), sources)
