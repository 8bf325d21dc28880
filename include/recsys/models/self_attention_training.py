"""How `recsys.models.self_attention` is trained, with torch; imported inside a fit alone."""

import contextlib
import hashlib
import json
import logging
import math
import os
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from recsys.arrays import BoolArray, Float32Array, Float64Array, Int64Array, entries_of
from recsys.errors import InputError
from recsys.logs import fields
from recsys.models.attention_layers import (
    OUTER_NORMS,
    SelfAttentionParameters,
    Weights,
    seen_at,
    shapes_of,
)
from recsys.models.base import Histories
from recsys.models.histories import steps_from_end, strength
from recsys.publishing import atomic_path

# Read when torch is loaded. Its threads would wait for one another at full speed: beside another
# job on the same cores a step took ten times as long.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
try:
    import torch
    from torch import Tensor
    from torch.nn import functional
except (ImportError, OSError) as error:
    raise InputError(
        f"self_attention is trained with torch, which does not import ({error}): install the "
        "version that requirements-torch.txt names, or leave self_attention out of model_types"
    ) from error

logger = logging.getLogger(__name__)

_BETAS = (0.9, 0.999)
_LARGEST_GRADIENT = 5.0
_WARM_UP = 2  # passes
_AVERAGED_OVER = 3  # passes: the scored weights are an average over about so many
_STEPS = 30  # a pass has at least, or small shops would hardly move
_FEWEST = 96  # answers that are worth a step
_SMALL = 0.02  # standard deviation of the first vectors
_FIRST_WEIGHTS = 0.01  # so small that a layer changes little of what passes by, see decision 157
_ROWS_AT_ONCE = 256  # answers that are compared with all products at a time
_LENGTHS_APART = 12  # batches among which histories are sorted by length
_CHECKPOINT = "checkpoint.npz"
CHECKPOINT_SECONDS = 10.0
"""A training writes down how far it is no more often."""
_HIDDEN = -1e9

Pass = tuple[dict[str, float], Float32Array, Weights]


def train(
    histories: Histories,
    items: int,
    chosen: SelfAttentionParameters,
    seed: int,
    checkpoint: Path | None,
) -> Iterator[Pass]:
    """Yields, pass by pass, what was measured, the ``(items, dimensions)`` vectors and the other
    weights. Entries of `histories` all count (`recsys.models.attention_layers.readable`).

    Raises `InputError` if the loss of the first pass is not finite; a later one ends the training
    with the pass before it."""
    lessons = Lessons(histories, chosen.length)
    if not len(lessons.answers):
        return  # nobody says what follows what
    work = _fingerprint(histories, items, chosen, seed)
    training = _Training(lessons, items, chosen, seed)
    losses = training.resume(checkpoint, work)
    for loss in losses:
        yield {"loss": loss}, *training.learnt()
    while len(losses) < chosen.epochs:
        loss = training.one_pass(len(losses))
        if not math.isfinite(loss):
            _stop(len(losses), chosen)
            return
        losses.append(loss)
        training.keep(checkpoint, work, losses)
        yield {"loss": loss}, *training.learnt()


def _stop(passes: int, chosen: SelfAttentionParameters) -> None:
    rate = f"learning_rate is {chosen.learning_rate}: a smaller one may help"
    problem = f"self_attention: the loss of pass {passes + 1} is not finite; {rate}"
    if not passes:
        raise InputError(problem)
    logger.warning("%s. The %d passes before it are what is learned", problem, passes)


class Lessons:
    """What there is to learn: of each moment of a history, what the next one brings.

    Histories longer than ``length + 1`` are cut into runs that share an entry each."""

    def __init__(self, histories: Histories, length: int) -> None:
        lengths = np.diff(histories.indptr)
        runs = np.maximum(-(-(lengths - 1) // length), 0)  # none for one entry or none
        user = np.repeat(np.arange(histories.users), runs)
        number, _ = entries_of(np.zeros(len(runs), np.int64), runs)
        # From the end, so that the first run is the short one.
        stops = histories.indptr[1:][user] - length * number
        starts = np.maximum(stops - length - 1, histories.indptr[:-1][user])
        self.starts, self.lengths = starts, stops - starts
        entry, bounds = entries_of(self.starts, self.lengths)
        self.items = histories.items[entry].astype(np.int64)
        self.times = histories.times[entry]
        self.steps = steps_from_end(histories)[entry]
        self.strengths = strength(histories)[entry]
        self.starts = bounds[:-1]
        # An answer is asked of the latest entry of the moment before its own.
        first = np.ones(len(entry), dtype=np.bool_)
        first[1:] = self.times[1:] != self.times[:-1]
        first[self.starts] = True
        place = np.arange(len(entry))
        moment_start = np.maximum.accumulate(np.where(first, place, 0))
        self.asked = moment_start - 1
        run_start = np.repeat(self.starts, self.lengths)
        self.asked[moment_start == run_start] = -1
        self.answers = np.add.reduceat((self.asked >= 0).astype(np.int64), self.starts)
        taught = self.answers > 0
        self.starts, self.lengths = self.starts[taught], self.lengths[taught]
        self.answers = self.answers[taught]

    def batches(self, answers: int, generator: np.random.Generator) -> list[Int64Array]:
        """All runs in an order by chance, in batches of about so many `answers` and of lengths
        that are much alike."""
        order = generator.permutation(len(self.answers))
        together = max(1, round(_LENGTHS_APART * answers / max(self.answers.mean(), 1)))
        batches: list[Int64Array] = []
        for first in range(0, len(order), together):
            some = order[first : first + together]
            some = some[np.argsort(self.lengths[some], kind="stable")]
            running = np.cumsum(self.answers[some])
            parts = max(1, round(running[-1] / answers))
            cuts = np.searchsorted(running, running[-1] * np.arange(1, parts) / parts)
            batches += [part for part in np.split(some, cuts) if len(part)]
        return [batches[place] for place in generator.permutation(len(batches))]


class _Batch(NamedTuple):
    """Runs side by side: ``(runs, longest)`` entries, and ``(answers,)`` what is asked."""

    items: Tensor
    strengths: Tensor
    seen: Tensor  # (runs, longest, longest)
    distance: Tensor
    asked: Tensor  # (answers,) places among runs x longest
    answers: Tensor
    weights: Tensor


def _batch(lessons: Lessons, runs: Int64Array, length: int, device: torch.device) -> _Batch:
    starts, lengths = lessons.starts[runs], lessons.lengths[runs]
    # The latest entry of a run is only answered, as nothing comes after it.
    longest = int(lengths.max()) - 1
    place = np.arange(longest)
    filled: BoolArray = place < lengths[:, None] - 1
    entry = np.where(filled, starts[:, None] + place, starts[:, None])
    seen, distance = seen_at(lessons.times[entry], lessons.steps[entry], length)
    seen &= filled[:, None, :]
    every, _ = entries_of(starts, lengths)
    of_run = np.repeat(np.arange(len(runs)), lengths)
    answered = lessons.asked[every] >= 0
    every, of_run = every[answered], of_run[answered]
    asked = of_run * longest + lessons.asked[every] - starts[of_run]

    def there(array: Any) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(device)

    return _Batch(
        there(lessons.items[entry]),
        there(lessons.strengths[entry]),
        there(seen),
        there(distance),
        there(asked),
        there(lessons.items[every]),
        there(lessons.strengths[every]),
    )


class Network(torch.nn.Module):
    """The layers that `SelfAttention` scores with, by the same names, and their dropout."""

    def __init__(self, items: int, chosen: SelfAttentionParameters) -> None:
        super().__init__()
        self.chosen = chosen
        self.vectors = torch.nn.Parameter(torch.randn(items, chosen.dimensions) * _SMALL)
        for name, shape in shapes_of(chosen).items():
            if name.endswith("norm"):
                first = torch.zeros(shape)
                first[..., 0, :] = 1
            elif name.endswith("bias"):
                first = torch.zeros(shape)
            else:
                spread = _SMALL if name.startswith("distance") else _FIRST_WEIGHTS
                first = torch.randn(shape) * spread
            self.register_parameter(name, torch.nn.Parameter(first))

    def forward(self, batch: _Batch) -> Tensor:
        """``(answers, dimensions)`` what is asked for."""
        chosen = self.chosen
        weights = dict(self.named_parameters())
        inputs = _even(functional.embedding(batch.items, self.vectors), weights["first_norm"])
        inputs = self._dropped(inputs * batch.strengths.clamp(max=1)[..., None])
        hidden = torch.where(batch.seen, batch.strengths.log()[:, None, :], _HIDDEN)[:, None]
        for layer in range(chosen.layers):
            of_layer = {
                name: array[layer]
                for name, array in weights.items()
                if name not in ("vectors", *OUTER_NORMS)
            }
            found = self._attended(of_layer, inputs, hidden, batch.distance[:, None])
            inputs = inputs + self._dropped(found)
            wide = _linear(_even(inputs, of_layer["hidden_norm"]), of_layer, "up")
            wide = self._dropped(functional.gelu(wide, approximate="tanh"))
            inputs = inputs + self._dropped(_linear(wide, of_layer, "down"))
        return _even(inputs.flatten(0, 1)[batch.asked], weights["last_norm"])

    def _attended(
        self, weights: dict[str, Tensor], inputs: Tensor, hidden: Tensor, distance: Tensor
    ) -> Tensor:
        runs, longest, wide = inputs.shape
        heads = self.chosen.heads
        each = wide // heads
        projected = _linear(_even(inputs, weights["attention_norm"]), weights, "projection")
        query, key, value = projected.view(runs, longest, 3, heads, each).permute(2, 0, 3, 1, 4)
        # No entry of the batch is further back than the longest run has moments.
        far = min(longest, self.chosen.length)
        distance = distance.clamp(max=far - 1).expand(-1, heads, -1, -1)
        by_distance = query @ weights["distance_keys"][:far].T / math.sqrt(each)
        by_distance = by_distance + weights["distance_bias"][:, None, :far]
        looks = query @ key.transpose(-1, -2) / math.sqrt(each)
        looks = looks + by_distance.gather(-1, distance) + hidden
        looks = functional.dropout(looks.softmax(-1), self.chosen.dropout * 0.4, self.training)
        from_distance = torch.zeros_like(by_distance).scatter_add(-1, distance, looks)
        found = looks @ value + from_distance @ weights["distance_values"][:far]
        return _linear(found.transpose(1, 2).flatten(2), weights, "output")

    def _dropped(self, values: Tensor) -> Tensor:
        return functional.dropout(values, self.chosen.dropout, self.training)


def _linear(inputs: Tensor, weights: dict[str, Tensor], name: str) -> Tensor:
    return inputs @ weights[name] + weights[f"{name}_bias"]


def _even(inputs: Tensor, norm: Tensor) -> Tensor:
    return functional.layer_norm(inputs, inputs.shape[-1:], norm[0], norm[1])


class _AllProducts(torch.autograd.Function):
    """Mean cross-entropy over all products, which takes the memory of `_ROWS_AT_ONCE` rows: their
    gradients are worked out at once, and the rows thrown away."""

    @staticmethod
    def forward(
        context: Any, asked: Tensor, vectors: Tensor, batch: _Batch, smoothing: float, half: bool
    ) -> Tensor:
        kind = torch.bfloat16 if half else torch.float32
        weights = batch.weights / batch.weights.sum()
        narrow = vectors.to(kind)
        of_asked, of_vectors = torch.empty_like(asked), torch.zeros_like(vectors)
        total = asked.new_zeros(())
        for first in range(0, len(asked), _ROWS_AT_ONCE):
            rows = slice(first, first + _ROWS_AT_ONCE)
            part, answers = asked[rows].to(kind), batch.answers[rows]
            place = torch.arange(len(answers), device=asked.device)
            chances = (part @ narrow.T).softmax(1)
            likely = chances[place, answers].float().clamp(min=1e-9).log()
            total -= (likely * weights[rows]).sum()
            chances -= smoothing / len(vectors)
            chances[place, answers] -= 1 - smoothing
            of_asked[rows] = (chances @ narrow) * weights[rows, None]
            of_vectors += chances.T @ (part * weights[rows, None]).to(kind)
        context.save_for_backward(of_asked, of_vectors)
        return total

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Any, ...]:
        of_asked, of_vectors = context.saved_tensors
        return of_asked * gradients[0], of_vectors * gradients[0], None, None, None


class _SomeProducts:
    """The same over drawn products: the more often bought the likelier they are drawn, which their
    scores are corrected for."""

    def __init__(self, counts: Float64Array, draws: int, device: torch.device) -> None:
        odds = np.sqrt(counts + 1)
        self._running = np.cumsum(odds) / odds.sum()
        self._log_odds = torch.from_numpy(np.log(odds / odds.sum() * draws)).float().to(device)
        self._draws = draws

    def loss(
        self,
        asked: Tensor,
        vectors: Tensor,
        batch: _Batch,
        smoothing: float,
        generator: np.random.Generator,
    ) -> tuple[Tensor, Tensor]:
        """What is learned from, and the cross-entropy in it."""
        drawn = np.searchsorted(self._running, generator.random(self._draws))
        drawn = np.minimum(drawn, len(vectors) - 1)
        others = torch.from_numpy(drawn).to(asked.device)
        rarer = self._log_odds[others]
        scores = asked @ functional.embedding(others, vectors).T
        right = (asked * functional.embedding(batch.answers, vectors)).sum(1)
        same = others == batch.answers[:, None]
        compared = torch.cat([right[:, None], (scores - rarer).masked_fill(same, _HIDDEN)], 1)
        total = compared.logsumexp(1)
        weights = batch.weights / batch.weights.sum()
        entropy = ((total - right) * weights).sum()
        # The mean over all products, from those that were drawn.
        share = (-rarer).exp() / len(vectors)
        smooth = ((total - scores @ share / share.sum()) * weights).sum()
        return (1 - smoothing) * entropy + smoothing * smooth, entropy.detach()


class _Training:
    """The network as it is after some passes, and what takes it through another one."""

    def __init__(
        self, lessons: Lessons, items: int, chosen: SelfAttentionParameters, seed: int
    ) -> None:
        self._lessons, self._chosen, self._seed = lessons, chosen, seed
        answers = int(lessons.answers.sum())
        self._batch = max(min(chosen.batch, answers // _STEPS), min(chosen.batch, _FEWEST))
        self._forgotten = min(1.0, self._batch / (_AVERAGED_OVER * answers))
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._half = self._device.type == "cuda" or _has_bfloat16()
        with _seeded(seed, 0):
            self._network = Network(items, chosen).to(self._device)
        self._named = dict(self._network.named_parameters())
        self._average = {name: each.detach().clone() for name, each in self._named.items()}
        flat = [each for name, each in self._named.items() if name.endswith(("norm", "bias"))]
        deep = [each for name, each in self._named.items() if not name.endswith(("norm", "bias"))]
        groups: list[dict[str, Any]] = [{"params": deep}, {"params": flat, "weight_decay": 0.0}]
        self._optimizer = torch.optim.AdamW(
            groups, betas=_BETAS, weight_decay=chosen.weight_decay, fused=True
        )
        self._steps, self._kept_at = 0, time.monotonic()
        self._some = None
        if items > chosen.all_products:
            counts = np.bincount(lessons.items, lessons.strengths, items).astype(np.float64)
            self._some = _SomeProducts(counts, chosen.negatives, self._device)

    def one_pass(self, before: int) -> float:
        """The mean loss of the pass after `before` others."""
        generator = np.random.default_rng([self._seed, before + 1])
        total, weight = torch.zeros((), device=self._device), 0.0
        with _seeded(self._seed, before + 1):
            batches = self._lessons.batches(self._batch, generator)
            for number, runs in enumerate(batches):
                batch = _batch(self._lessons, runs, self._chosen.length, self._device)
                self._pace(before + (number + 1) / len(batches))
                worth = float(batch.weights.sum())
                total += self._step(batch, generator) * worth
                weight += worth
        return float(total) / weight

    def _pace(self, passes: float) -> None:
        rate = self._chosen.learning_rate * min(1.0, passes / _WARM_UP)
        for group in self._optimizer.param_groups:
            group["lr"] = rate

    def _step(self, batch: _Batch, generator: np.random.Generator) -> Tensor:
        asked = self._network(batch)
        smoothing, vectors = self._chosen.label_smoothing, self._network.vectors
        if self._some is None:
            loss = _AllProducts.apply(asked, vectors, batch, smoothing, self._half)
            entropy = loss.detach()
        else:
            loss, entropy = self._some.loss(asked, vectors, batch, smoothing, generator)
        self._optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._network.parameters(), _LARGEST_GRADIENT)
        self._optimizer.step()
        with torch.no_grad():
            averages: list[Tensor] = list(self._average.values())
            named: list[Tensor] = list(self._named.values())
            # The first steps count less than what they lead to.
            self._steps += 1
            torch._foreach_lerp_(averages, named, max(self._forgotten, 9 / (9 + self._steps)))
        return entropy

    def learnt(self) -> tuple[Float32Array, Weights]:
        """The vectors of products and the other weights, averaged over the latest steps."""
        arrays = {name: each.cpu().numpy().copy() for name, each in self._average.items()}
        return arrays.pop("vectors"), arrays

    def keep(self, checkpoint: Path | None, work: str, losses: list[float]) -> None:
        """Write down how far it is; no more than every few seconds, and at the end."""
        now, done = time.monotonic(), len(losses) == self._chosen.epochs
        if checkpoint is None or (now - self._kept_at < CHECKPOINT_SECONDS and not done):
            return
        self._kept_at = now
        arrays = {
            "work": np.array(work),
            "losses": np.array(losses),
            "steps": np.array(self._steps),
        }
        for name, array in self._state().items():
            arrays[name] = array.detach().cpu().numpy()
        with atomic_path(checkpoint / _CHECKPOINT) as path, path.open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)

    def resume(self, checkpoint: Path | None, work: str) -> list[float]:
        """Go on from what `keep` wrote: the losses of the passes so far. A checkpoint of other
        work, or one that cannot be read, is none."""
        if checkpoint is None or not (checkpoint / _CHECKPOINT).exists():
            return []
        try:
            with np.load(checkpoint / _CHECKPOINT, allow_pickle=False) as stored:
                arrays = {name: stored[name] for name in stored.files}
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            logger.warning("self_attention: a checkpoint cannot be read: %s", error)
            return []
        if str(arrays.get("work")) != work:
            return []
        for name, state in self._state().items():
            with torch.no_grad():
                state.copy_(torch.from_numpy(arrays[name]))
        self._steps = int(arrays["steps"])
        logger.info("self_attention goes on%s", fields(passes=len(arrays["losses"])))
        return [float(loss) for loss in arrays["losses"]]

    def _state(self) -> dict[str, Tensor]:
        """All tensors that a step changes."""
        tensors: dict[str, Tensor] = {}
        for name, each in self._named.items():
            state = self._optimizer.state[each]
            if not state:  # as AdamW begins
                state["step"] = torch.zeros((), device=self._device)
                state["exp_avg"], state["exp_avg_sq"] = (
                    torch.zeros_like(each),
                    torch.zeros_like(each),
                )
            tensors |= {f"{name}.{part}": state[part] for part in sorted(state)}
            tensors |= {f"{name}.weights": each, f"{name}.average": self._average[name]}
        return tensors


def _fingerprint(
    histories: Histories, items: int, chosen: SelfAttentionParameters, seed: int
) -> str:
    """What a checkpoint is of."""
    said = {**chosen.model_dump(), "seed": seed, "items": items}
    digest = hashlib.sha256(json.dumps(said, sort_keys=True).encode())
    for name in ("indptr", "items", "confidence", "weight", "times", "kinds"):
        digest.update(np.ascontiguousarray(getattr(histories, name)).data)
    return digest.hexdigest()


@contextlib.contextmanager
def _seeded(seed: int, number: int) -> Iterator[None]:
    """Torch draws from a sequence of its own, which leaves others' draws as they are, and works
    with as many threads as the machine gives: sums by another number of threads are others in
    their last digits, and a training that goes on in another process would be another one."""
    before = torch.get_num_threads()
    asked = os.environ.get("OMP_NUM_THREADS", "")
    threads = int(asked) if asked.isdigit() else len(os.sched_getaffinity(0))
    torch.set_num_threads(max(1, threads))
    try:
        with torch.random.fork_rng():
            words = np.random.SeedSequence([seed, number]).generate_state(1, np.uint64)
            torch.manual_seed(words[0])
            yield
    finally:
        torch.set_num_threads(before)


def _has_bfloat16() -> bool:
    """Whether the processor multiplies in half the width, which is three times as fast then."""
    able = torch.cpu.get_capabilities()
    return bool(able.get("avx512_bf16") or able.get("amx_bf16"))
