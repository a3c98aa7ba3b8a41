"""What a fit is asked to do: data, epochs, batches and callbacks, checked before anything runs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeGuard
from zlib import crc32

import numpy as np

from pyframe import plugins, schedules
from pyframe._version import __version__
from pyframe.attributes import flag
from pyframe.callbacks import Callback, WeightAverage
from pyframe.callbacks import get as get_callback
from pyframe.communicators import Communicator
from pyframe.engine.loop import Loop, rates_of
from pyframe.engine.sharing import Share
from pyframe.errors import ArgumentError, GraphError, check_integer, check_number
from pyframe.graph.node import Constant
from pyframe.graph.order import topological_order
from pyframe.model import Model
from pyframe.ops.reductions import Sum
from pyframe.plugins import listens as plugins_listen
from pyframe.training.feeds import DEFAULT_BATCH, Feeds
from pyframe.training.fit import in_order
from pyframe.training.goal import CompiledGoal
from pyframe.training.history import History
from pyframe.training.resuming import SavedTraining
from pyframe.training.streams import Streamed, validation_data_of

FIRST_STEPS = np.arange(1024)  # whose rates are made before the first one anyway


def averages_steps(callback: Callback) -> TypeGuard[WeightAverage]:
    """Return whether a callback has each step add to an average, in C."""
    return isinstance(callback, WeightAverage) and callback.every == "step"


def averages_later(callback: Callback) -> bool:
    """Return whether it does so from a later epoch on."""
    return averages_steps(callback) and callback.start_epoch > 0


@dataclass(frozen=True)
class FitRequest:
    """What a fit is to do, all of it checked; nothing has been changed yet."""

    data: Feeds | Streamed
    held_out: Feeds | Streamed | None
    epochs: int  # those in a file among them
    batch_size: int | None
    shuffle: bool
    rates: Any
    listeners: list[Callback]
    history: History
    accumulate: int = 1
    saved: SavedTraining | None = None
    share: Share | None = None

    @property
    def goal(self) -> CompiledGoal:
        """What is trained for."""
        return self.data.goal

    @property
    def left(self) -> int:
        """Epochs to run."""
        return max(self.epochs - self.history.epochs, 0)

    def going_on(self, saved: SavedTraining) -> FitRequest:
        """Return the request to go on with a fit that is in a file.

        Raises
        ------
        CheckpointError
            If that is another fit than this.
        """
        rows = self.data.rows
        saved.check(
            self.listeners,
            seed=self.history.seed,
            batch_size=self.batch_size or rows,
            rows=rows,
            validation_rows=self.validation_rows,
            shuffle=self.shuffle,
            accumulate=self.accumulate,
            columns=self.goal.log_names(validated=self.held_out is not None),
        )
        history = saved.history()
        if self.epochs < history.epochs:
            raise ArgumentError(
                f"epochs={self.epochs}, and the fit in {saved.source} has had {history.epochs}: "
                "they count, so pass at least as many"
            )
        self.data.go_on(history.first_epoch)
        return replace(self, saved=saved, history=history)

    def loop(self) -> Loop:
        """Return the loop over its epochs; the parameters have been claimed."""
        state = self.goal.plan.engine.state
        steps = self.data.steps(self.batch_size, self.accumulate)
        loop: Loop = self.data.loop(
            epochs=self.left,
            batch_size=self.batch_size,
            shuffle=self.shuffle,
            seed=self.history.seed,
            learning_rates=self.rates,
            first_epoch=self.history.first_epoch + self.history.epochs,
            stop=self._stops(),
            claimed=True,
            accumulate=self.accumulate,
            averages=[c.begin(state, steps) for c in self.listeners if averages_steps(c)],
            share=self.share,
        )
        return loop

    def validation(self) -> Loop | None:
        """Return the loop that evaluates what is held out, once for each epoch of training."""
        if self.held_out is None:
            return None
        size, part = self.validation_size, self.share and self.held_out.part(self.share)
        rows = part or self.held_out
        loop: Loop = rows.loop(
            epochs=self.left,
            batch_size=None if size is None else min(size, rows.rows),
            shuffle=False,
            stop="epoch",
            training=False,
        )
        if part is not None:
            loop.share = self.share
        return loop

    @property
    def validation_rows(self) -> int:
        """How many rows are held out, 0 if that is not known."""
        return 0 if self.held_out is None else self.held_out.rows

    @property
    def validation_size(self) -> int | None:
        """Rows that are evaluated at a time: as many as a step has, if that is known."""
        return self.batch_size if self.data.rows else DEFAULT_BATCH

    def begin_together(self, share: Share) -> None:
        """Begin on all ranks with the parameters of the first, which have been claimed.

        Raises
        ------
        ArgumentError
            On all ranks, if any is to do something else than the first: it names each.
        """
        first, *others = share.communicator.gather(self._description())
        found = [
            f"rank {rank} has the {key} {said[key]}, and rank 0 has {first[key]}"
            for rank, said in enumerate(others, 1)
            for key in first
            if said[key] != first[key]
        ]
        if found:
            raise ArgumentError(
                f"{'; '.join(found)}: all ranks run the same script, with the same packages, on "
                "the whole data, of which pyframe gives each its part"
            )
        snapshot, state = self.goal.plan.snapshot(), self.goal.plan.engine.state
        for array in snapshot.arrays[: None if state.ranks is None else len(state.storages)]:
            if share.communicator.rank:
                array[...] = 0
            share.communicator.all_reduce(array)
        self.goal.plan.restore(snapshot)

    def _description(self) -> dict[str, str]:
        """Return what has to be the same for all ranks, in words."""
        plan, history, ranks = self.goal.plan, self.history, self.share and self.share.communicator
        names = plan.graph.names
        nodes = [
            (
                n.op,
                names.get(n),
                sorted(getattr(n, "attrs", {}).items()),
                crc32(n.array.tobytes()) if isinstance(n, Constant) else 0,
                n.specs,
            )
            for n in plan.graph.order
        ]
        losses = [term.node.op for term in self.goal.terms]
        rates = rates_of(self.rates or plan.optimizer.learning_rate, plan.step_count + FIRST_STEPS)
        loaded = sorted(f"{p.name} {p.version}" for p in plugins.installed().values() if p.things)
        return {
            "packages": ", ".join([f"pyframe-nn {__version__}", *loaded]),
            "network": f"{sum(p.size for p in plan.parameters)} parameters ({_mark(nodes)})",
            "loss": ", ".join([*losses, *self.goal.log_names(validated=False)]),
            "optimizer": _told(plan.optimizer),
            "schedule": f"{_told(self.rates)} ({_mark(rates.tolist())})",
            "batch_size": str(self.batch_size),
            "accumulate": str(self.accumulate),
            "communicator": _told({k: v for k, v in vars(ranks).items() if isinstance(v, bool)}),
            "seed": f"{history.seed}, shuffle={self.shuffle}",
            "epochs": f"{self.epochs}, after {history.epochs} and step {plan.step_count}",
            "callbacks": ", ".join(type(c).__name__ for c in self.listeners) or "none",
            "data": _data(self.data),
            "validation data": _data(self.held_out),
        }

    def _stops(self) -> str | None:
        """Return where the loop must come back to Python, besides every 50 ms."""
        if plugins_listen("batch_end") or any(c.listens_to("on_batch_end") for c in self.listeners):
            return "step"
        events = ("on_epoch_start", "on_epoch_end")
        if (
            self.held_out is not None
            or plugins_listen("epoch_end")
            or plugins_listen("epoch_start")
            or any(c.listens_to(e) for c in self.listeners for e in events)
        ):
            return "epoch"
        return None


def _told(thing: Any) -> str:
    """Return a value in words, a function without its address in memory."""
    return re.sub(" at 0x[0-9a-f]+", "", repr(thing))


def _data(data: Any) -> str:
    """Return the shapes of some data, and a mark of a few rows, evenly spread."""
    if not isinstance(data, Feeds):
        return type(data).__name__
    few = data.taken(np.unique(np.linspace(0, data.rows - 1, 64).astype(np.int64))).values()
    shapes = ", ".join(f"{a.dtype} {(data.rows, *a.shape[1:])}" for a in few)
    return f"{shapes} ({_mark([a.tobytes() for a in few])})"


def _mark(value: Any) -> str:
    return f"{crc32(repr(value).encode()):08x}"


def request_fit(
    model: Model,
    data: Feeds | Streamed,
    *,
    epochs: int,
    batch_size: Any,
    validation_split: float,
    validation_data: Any,
    shuffle: bool,
    seed: int,
    callbacks: Sequence[Callback],
    schedule: Any,
    accumulate: int,
    first_epoch: int,
    communicator: Communicator,
) -> FitRequest:
    """Return what `Trainer.fit` is asked to do; for the arguments see there."""
    epochs = check_integer("epochs", epochs, at_least=0)
    seed = check_integer("seed", seed, at_least=0, at_most=2**64 - 1)
    rates = None if schedule is None else schedules.get(schedule)
    if rates is not None:
        # Before anything changes; the rates of later steps are checked when their table is made.
        rates_of(rates, np.arange(1, dtype=np.int64))
    ranks = communicator.size
    data.check(epochs)
    accumulate = _check_accumulate(accumulate, data.goal.plan.optimizer, ranks)
    if accumulate > 1 or ranks > 1:
        _check_mean_of_rows(data.goal)
    held_out: Feeds | Streamed | None
    data, held_out = data.split(check_number("validation_split", validation_split))
    if validation_data is not None:
        if held_out is not None:
            raise ArgumentError("pass validation_split or validation_data, not both")
        held_out = validation_data_of(data.goal, model, validation_data, data.labels)
        held_out.check(epochs)
    if not data.goal.plan.engine.trained_parameters():
        raise GraphError(
            f"there is nothing to train: of the {len(model.parameters)} parameters of {model!r} "
            "the loss depends on none that is trainable; set trainable = True on a layer or a "
            "parameter"
        )
    size = data.size(batch_size)
    if not data.steps(size, accumulate) and any(averages_later(c) for c in callbacks):
        raise ArgumentError(
            "WeightAverage(every='step') begins after some epochs, and it is not known how many "
            "steps one has: pass steps_per_epoch="
        )
    return FitRequest(
        data,
        held_out,
        epochs=epochs,
        batch_size=size,
        shuffle=flag(shuffle, "shuffle"),
        rates=rates,
        listeners=in_order(callbacks),
        history=History(seed, first_epoch),
        accumulate=accumulate,
        share=Share(communicator) if ranks > 1 else None,
    )


def _check_accumulate(accumulate: int, optimizer: Any, ranks: int) -> int:
    """Return how many batches make a step, or raise if the optimizer allows only one."""
    number = check_integer("accumulate", accumulate, at_least=1)
    why = ""
    if not optimizer.needs_gradients:
        why = "looks at the loss of a batch"
    elif optimizer.evaluates or getattr(optimizer, "sharpness", None):
        why = "runs a batch several times in a step"
    if number > 1 and why:
        raise ArgumentError(
            f"accumulate={number}: {type(optimizer).__name__} {why}; fit with a batch_size "
            f"{number} times as large instead, or with another optimizer"
        )
    if ranks > 1 and why:
        raise ArgumentError(
            f"{type(optimizer).__name__} {why}, of which each of {ranks} ranks has only its part; "
            "train in one process, or with another optimizer"
        )
    return number


def _check_mean_of_rows(goal: CompiledGoal) -> None:
    """Raise if the loss of a batch is not the mean over its rows that those of its parts add up to.

    It is sum(w l) / sum(w), w being the sample weights: of parts, their losses by their weights.
    """
    found = [getattr(node, "attrs", {}) for node in topological_order(goal.terms)]
    why = ""
    if any(isinstance(term, Sum) for term in goal.terms) or any(
        attrs.get("reduction") == "sum" for attrs in found
    ):
        why = "is a sum over the batch, not a mean"
    elif any(attrs.get("ignore_index") is not None for attrs in found):
        why = "has an ignore_index, and divides by the number of labels that are not ignored"
    if why:
        raise ArgumentError(
            f"the loss {why}: losses of parts of a batch do not add up to that of all its rows, as "
            "accumulate= and several ranks need; use the mean, with a sample weight of 0 for rows "
            "that do not count"
        )


def first_epoch(initial_epoch: int | None, resume: Any, epochs_done: int) -> int:
    """Return the number of the first epoch, unless a file has it."""
    if initial_epoch is None:
        return epochs_done
    if resume is not None:
        raise ArgumentError("pass resume or initial_epoch: the file has the epoch")
    return check_integer("initial_epoch", initial_epoch, at_least=0)


def callbacks_of(given: Any) -> list[Callback]:
    """Return the callbacks of a list of instances, classes and names."""
    if isinstance(given, Callback | str):
        raise ArgumentError(f"callbacks={given!r}; pass a list: callbacks=[...]")
    if not isinstance(given, Iterable | None):
        raise ArgumentError(f"callbacks={given!r}; pass a list of callbacks")
    return [get_callback(c) for c in (() if given is None else given)]
