"""The state of a training in a file, and back: with it a fit goes on as if it had never stopped.

All that decides the next step is in it: parameters and states, the optimizer's slots, the step
count (which schedules and random streams count by), the seed, the epoch and the batch in it (which
give the shuffled order), the sums over that epoch, the history, and what callbacks have counted.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple, Protocol

import numpy as np

from pyframe import checkpoint, optimizers
from pyframe.callbacks import Callback, FittingTrainer
from pyframe.checkpoint import missing
from pyframe.checkpoint.container import is_plain_name
from pyframe.checkpoint.document import ODD, TRAINING, Training, plain, restored
from pyframe.checkpoint.encoding import array_names, model_graph, origin_of
from pyframe.engine.loop import Loop
from pyframe.engine.plan import Plan, Snapshot
from pyframe.errors import (
    ArgumentError,
    BusyError,
    CheckpointError,
    PyframeError,
    check_integer,
    raise_if_signalled,
)
from pyframe.graph.parameter import Parameter
from pyframe.graph.spec import Array
from pyframe.plugins.registry import folded, registries
from pyframe.schedules import Schedule
from pyframe.training.fit import Fit, counts
from pyframe.training.goal import CompiledGoal, Goal
from pyframe.training.history import History

# Arguments of a fit that the file has as well: with others it would be another fit.
FIT_ARGUMENTS = {
    "seed": "seed",
    "batch_size": "batch_size",
    "rows": "number of rows to train on",
    "validation_rows": "number of rows to validate with",
    "shuffle": "shuffle",
    "accumulate": "number of batches to accumulate",
    "columns": "losses and metrics",
}


AFTERWARDS = (
    "was written after its fit had ended and the parameters had been changed (as EarlyStopping "
    "does when it restores the best)"
)


CHANGED = (
    "was written after what is trainable, the optimizer or its options had been changed since its "
    "fit began, which counts from the next fit on"
)


class ResumableTrainer(FittingTrainer, Protocol):
    """What a file is written of, and read for: a `pyframe.Trainer`."""

    goal: Goal
    detect_anomaly: bool

    @property
    def optimizer(self) -> Any:
        """What the parameters are updated by."""

    @property
    def epochs_done(self) -> int:
        """Finished epochs, of all fits."""


class _Packer:
    """Takes the arrays out of values that JSON shall hold."""

    def __init__(self) -> None:
        self.arrays: dict[str, Array] = {}

    def pack(self, value: Any, key: str) -> Any:
        """Return a value with ``{"tensor": name}`` for each array; `key` says what it is."""
        if isinstance(value, np.ndarray):
            name = TRAINING + key
            if not is_plain_name(name) or name in self.arrays:
                name = f"{TRAINING}array_{len(self.arrays)}"
            self.arrays[name] = value
            return {"tensor": name}
        if isinstance(value, Mapping):
            return {"dict": {str(k): self.pack(v, f"{key}/{k}") for k, v in value.items()}}
        if isinstance(value, list | tuple):
            return [self.pack(v, f"{key}/{i}") for i, v in enumerate(value)]
        return plain(value)


def _unpack(value: Any, arrays: Mapping[str, Array]) -> Any:
    """Return what `_Packer.pack` was given; lists stay lists."""
    if isinstance(value, list):
        return [_unpack(v, arrays) for v in value]
    if isinstance(value, dict) and "tensor" in value:
        array = arrays[value["tensor"]]
        return array.astype(array.dtype.newbyteorder("="))
    if isinstance(value, dict) and "dict" in value:
        return {k: _unpack(v, arrays) for k, v in value["dict"].items()}
    return restored(value)


# ---- to a file ----


def collect(
    trainer: ResumableTrainer, fit: Fit | None, goal: CompiledGoal, snapshot: Snapshot
) -> Training:
    """Return the state of a trainer, copied.

    Parameters
    ----------
    trainer : Trainer
    fit : Fit, optional
        Its last one.
    goal, snapshot : CompiledGoal, Snapshot
        What its next fit trains on, and begins with.
    """
    packer, plan = _Packer(), goal.plan
    own = _own_values(trainer, plan)
    named = plan.named(snapshot)
    rest = {key: array for key, array in named.items() if key not in own}
    config, whole = _config(trainer.optimizer)
    reason = _why_none(fit, trainer)
    if fit is not None and not reason and goal is not fit.goal:
        reason = CHANGED
    document = {
        "optimizer": config,
        "optimizer_is_whole": whole,
        "step": snapshot.step,
        "skipped_steps": int(snapshot.arrays[-1][0]),
        "epochs_done": trainer.epochs_done,
        "weighted": goal.weight is not None,
        "arrays": {key: packer.pack(array, key)["tensor"] for key, array in rest.items()},
        "trainer": _arguments(trainer),
        "fit": None if fit is None or reason else _fit_record(fit, trainer, packer),
        "no_fit": reason,
    }
    return Training(document, packer.arrays, _provenance(trainer, fit))


def _why_none(fit: Fit | None, trainer: ResumableTrainer) -> str:
    """Return why there is no fit that could go on from what a trainer is now; empty: there is."""
    if fit is None:
        return "was written when no fit had begun"
    if fit.running and fit.thread != threading.get_ident():
        return "was written by another thread while its fit was under way"
    broken = fit.broken_by()
    if broken:
        return f"was written after its fit had been interrupted {broken}"
    if fit.goal.plan is not trainer.plan or fit.step != trainer.plan.step_count:
        return AFTERWARDS
    return ""


def _own_values(trainer: ResumableTrainer, plan: Plan) -> dict[str, Parameter]:
    """Return the parameters and states that are the model's, by their keys in `Plan.named`."""
    model = trainer.model
    names = plan.graph.names
    return {f"values/{names.get(p, p.label())}": p for p in [*model.parameters, *model.states]}


def _config(optimizer: Any) -> tuple[Any, bool]:
    """Return what the optimizer can be made from; if its rate is a function, its name and False."""
    try:
        return plain(optimizer.config()), True
    except PyframeError:
        return plain({"name": optimizer.name}), False


# What is named in which argument of a trainer.
KINDS = {"loss": "losses", "metrics": "metrics", "weighted_metrics": "metrics"}


def _arguments(trainer: ResumableTrainer) -> dict[str, Any]:
    """Return the arguments of a trainer that a file can hold: names, not functions."""
    result = {}
    given = {**trainer.goal.arguments, "detect_anomaly": trainer.detect_anomaly}
    for key, value in given.items():
        kind = KINDS.get(key)
        try:
            result[key] = plain(value if kind is None else _by_name(kind, value))
        except CheckpointError:
            continue
    return result


def _by_name(kind: str, value: Any) -> Any:
    """Return losses or metrics with the names of those that are registered."""
    if isinstance(value, Mapping):
        return {key: _by_name(kind, one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_by_name(kind, one) for one in value]
    found = None if isinstance(value, str) else registries[kind].find(value)
    return value if found is None else found[0]


def _provenance(trainer: ResumableTrainer, fit: Fit | None) -> dict[str, dict[str, Any]]:
    """Return where the optimizer, its schedule, losses, metrics and callbacks came from."""
    parts = {"optimizers": [type(trainer.optimizer)]}
    rate = getattr(trainer.optimizer, "learning_rate", None)
    if isinstance(rate, Schedule):
        parts["schedules"] = [type(rate)]
    result = {kind: dict(origin_of(kind, part) for part in some) for kind, some in parts.items()}
    given = trainer.goal.arguments
    named: dict[str, list[Any]] = {
        "losses": [*_leaves(given["loss"])],
        "metrics": [*_leaves(given["metrics"]), *_leaves(given["weighted_metrics"])],
        "callbacks": [type(c) for c in fit.counting] if fit is not None else [],
    }
    for kind, some in named.items():
        found = [thing for one in some if (thing := _registered(kind, one)) is not None]
        if found:
            result[kind] = dict(origin_of(kind, thing) for thing in found)
    return result


def _registered(kind: str, one: Any) -> Any:
    """Return what is registered under a name, or is registered itself; otherwise None."""
    registry = registries[kind]
    if not isinstance(one, str):
        return None if registry.find(one) is None else one
    with suppress(PyframeError):  # whatever has become of it since: the file can be written
        return registry.get(one)
    return None


def _leaves(value: Any) -> Iterator[Any]:
    """Yield the losses or metrics in lists and dicts of them."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if not isinstance(value, list | tuple):
        yield value
        return
    for one in value:
        yield from _leaves(one)


def _fit_record(fit: Fit, trainer: ResumableTrainer, packer: _Packer) -> dict[str, Any]:
    """Return what a fit needs to go on."""
    history, position = fit.history, fit.position()
    columns = {key: np.asarray(position.history[key]) for key in fit.log_names}
    last = {key: values[-1] for key, values in columns.items() if values.ndim == 1 and len(values)}
    return {
        "seed": history.seed,
        "batch_size": fit.batch_size,
        "rows": fit.rows,
        "validation_rows": fit.validation_rows,
        "shuffle": fit.shuffle,
        "accumulate": fit.accumulate,
        "columns": fit.log_names,
        "first_epoch": history.first_epoch,
        "epochs": position.epochs,
        "batch": position.batch,
        "sums": packer.pack(position.sums, "sums"),
        "stopped": trainer.stop_training,
        "seconds": history.seconds,
        "history": packer.pack(columns, "history"),
        "last": plain(last),
        **{
            kind: [
                [type(c).__name__, packer.pack(c.training_state(trainer), f"{kind}/{i}")]
                for i, c in enumerate(some)
            ]
            for kind, some in (("callbacks", fit.counting), ("watchers", fit.watching))
        },
    }


# ---- from a file ----


class SavedTraining(NamedTuple):
    """The state of a training that was read and fits; nothing has been changed by it yet."""

    source: str
    record: dict[str, Any]
    arrays: dict[str, Array]
    plan: Plan
    snapshot: Snapshot
    document: Mapping[str, Any]
    width: int  # of the sums of the metrics over an epoch

    @property
    def epochs_done(self) -> int:
        """Finished epochs, of all fits."""
        return int(self.record["epochs_done"])

    @property
    def fit(self) -> dict[str, Any]:
        """The fit in the file."""
        record: dict[str, Any] | None = self.record["fit"]
        if record is None:
            reason = self.record.get("no_fit") or AFTERWARDS  # older files give no reason
            raise CheckpointError(
                f"{self.source} {reason}: there is no fit to resume; trainer.restore(path) goes "
                "back to that state"
            )
        return record

    def check(self, listeners: Sequence[Callback], **given: Any) -> None:
        """Raise `CheckpointError` if a fit is another one than that in the file."""
        names = [type(c).__name__ for c in listeners if counts(c)]
        kept = [name for name, _ in self.fit["callbacks"]]
        if names != kept:
            was = [f"{name}{self._package_of_callback(name)}" for name in kept]
            raise CheckpointError(
                f"{self.source}: its fit had the callbacks {', '.join(was) or 'none'} (of those "
                f"that count), and this one has {', '.join(names) or 'none'}; pass the same, in "
                "the same order"
            )
        for key, what in FIT_ARGUMENTS.items():
            was = self.fit.get(key, 1)  # no accumulate in files of older releases
            if was != given[key]:
                raise CheckpointError(
                    f"{self.source}: the {what} of its fit was {was!r}, and now it is "
                    f"{given[key]!r}; pass the same data and arguments to resume it, or begin a "
                    "new fit after trainer.restore(path)"
                )
        wanted = f"float64 {[self.width]}"
        if _kind(self.sums) != wanted:
            raise CheckpointError(
                f"{self.source} is damaged: the sums of its metrics are {_kind(self.sums)}, and "
                f"not {wanted}"
            )

    def _package_of_callback(self, name: str) -> str:
        """Return the package that has brought the callback of a class's name, for messages."""
        with _complaining(self.source):
            stated = self.document["provenance"].get("callbacks", {})
            known = [one for one in stated if folded(one) == folded(name)]
            return missing.package(self.document, "callbacks", known[0]) if known else ""

    @property
    def sums(self) -> Array:
        """What the metrics came to over the batches of the present epoch."""
        with _complaining(self.source):
            sums: Array = self.arrays[self.fit["sums"]["tensor"]]
        return sums

    def history(self) -> History:
        """Return the history up to the file."""
        history = History(self.fit["seed"], self.fit["first_epoch"])
        history.epochs, history.seconds = self.fit["epochs"], self.fit["seconds"]
        with _complaining(self.source):
            for key, values in _unpack(self.fit["history"], self.arrays).items():
                history[key] = values.tolist()
                if len(history[key]) != history.epochs:
                    raise ArgumentError(f"its history of {key!r} has {len(history[key])} epochs")
        return history

    def seek(self, loop: Loop) -> None:
        """Have a loop begin in the middle of its first epoch, if the file was written there."""
        if self.fit["batch"] and loop.epochs:
            loop.seek(self.fit["batch"], self.sums)

    def give_back(self, fit: Fit) -> None:
        """Tell callbacks what they had counted."""
        with _complaining(self.source):
            for callback, (_, state) in zip(fit.counting, self.fit["callbacks"], strict=True):
                callback.restore_training_state(fit.trainer, _unpack(state, self.arrays))
            kept = [*self.fit.get("watchers", ())]  # older files have none
            for callback in fit.watching:
                name = type(callback).__name__
                known = [i for i, (one, _) in enumerate(kept) if one == name]
                if known:
                    state = _unpack(kept.pop(known[0])[1], self.arrays)
                    callback.restore_training_state(fit.trainer, state)
        fit.trainer.stop_training = self.fit["stopped"]


def arguments(path: str | os.PathLike[str], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments for a trainer like the one that wrote a file.

    Raises
    ------
    CheckpointError
        If one is missing that the file could not hold, or that cannot be found here.
    """
    document, source = checkpoint.describe(path), os.fspath(path)
    training = checkpoint.require_training(document, source)
    with _complaining(source):
        result = {key: restored(value) for key, value in training["trainer"].items()}
        _require(document, training, result, given, source)
        for key in ("loss", "metrics"):
            if key not in result and key not in given:
                raise CheckpointError(
                    f"{source} holds no {key}, since it was a function or a class of yours: pass "
                    f"{key}= as to the Trainer"
                )
        if "optimizer" not in given:
            config = restored(training["optimizer"])
            if training["optimizer_is_whole"] is not True:
                raise CheckpointError(
                    f"{source} holds no learning rate for {config['name']!r}, since it was a "
                    "function: pass optimizer= as to the Trainer"
                )
            result["optimizer"] = optimizers.get(config)
        return {**result, **given}


@contextmanager
def naming(path: str | os.PathLike[str], given: Mapping[str, Any]) -> Iterator[None]:
    """Turn errors about a trainer's arguments into those of a file, if all came from there."""
    try:
        yield
    except ODD as error:
        raise_if_signalled(error)
        if given or isinstance(error, CheckpointError):
            raise
        raise CheckpointError(
            f"{os.fspath(path)} does not describe a training that can go on: {error}"
        ) from error


def _require(
    document: Mapping[str, Any],
    training: Mapping[str, Any],
    arguments: Mapping[str, Any],
    given: Mapping[str, Any],
    source: str,
) -> None:
    """Raise `CheckpointError` if a part of a training is neither given nor found here."""
    wanted: dict[str, list[Any]] = {}
    if "optimizer" not in given:
        config = restored(training["optimizer"])
        rate = config.get("learning_rate")
        wanted["optimizers"] = [config["name"]]
        wanted["schedules"] = [rate["name"]] if isinstance(rate, Mapping) else []
    for key, kind in KINDS.items():
        if key not in given:
            names = [one for one in _leaves(arguments.get(key)) if isinstance(one, str)]
            wanted[kind] = [*wanted.get(kind, ()), *names]
    lost = [(k, n) for k, names in wanted.items() for n in missing.lacking(document, k, names)]
    if lost:
        raise missing.complaint(document, lost, source)


@contextmanager
def _complaining(source: str) -> Iterator[None]:
    """Turn what odd values do to the code that takes them into one kind of error."""
    try:
        yield
    except (CheckpointError, BusyError):
        raise
    except ODD as error:
        raise_if_signalled(error)
        raise CheckpointError(
            f"{source} does not describe a training that can go on: {type(error).__name__} {error}"
        ) from error


def read(
    path: str | os.PathLike[str], trainer: ResumableTrainer, goal: CompiledGoal
) -> SavedTraining:
    """Return what a file holds of a training, once it is known to fit a trainer's.

    Raises
    ------
    CheckpointError
        If the file is damaged, or its model, optimizer or kind of loss is another one.
    """
    document, arrays = checkpoint.read_training(path)
    source = os.fspath(path)
    with _complaining(source):
        record, plan = document["training"], goal.plan
        if record["weighted"] is not (goal.weight is not None):
            had, has = ("sample weights", "none") if record["weighted"] else ("none", "some")
            raise CheckpointError(f"{source}: its training had {had}, and this one has {has}")
        name = restored(record["optimizer"])["name"]
        if name != trainer.optimizer.name:
            raise CheckpointError(
                f"{source}: its training had the optimizer {name!r}"
                f"{missing.package(document, 'optimizers', name)}, and this one has "
                f"{trainer.optimizer.name!r}"
            )
        snapshot = plan.snapshot()
        named = plan.named(snapshot)
        found = {key: arrays[tensor] for key, tensor in record["arrays"].items()}
        found |= _model_values(trainer, plan, document, arrays, source)
        for key in [*named, *found]:
            kind, here = _kind(found.get(key)), _kind(named.get(key))
            if kind != here:
                raise CheckpointError(
                    f"{source} is of another model or optimizer: it has {kind} for {key!r}, and "
                    f"here {here} is needed"
                )
        plan.engine.set_named(snapshot, found)
        skipped = record.get("skipped_steps", 0)  # a file of an older release has none
        most = record["step"]
        snapshot.arrays[-1][0] = check_integer("skipped_steps", skipped, at_least=0, at_most=most)
        width = goal.columns[-1].stop
        step = record["step"]
        return SavedTraining(
            source, record, arrays, plan, Snapshot(snapshot.arrays, step), document, width
        )


def _kind(array: Array | None) -> str:
    return "nothing" if array is None else f"{array.dtype.name} {list(array.shape)}"


def _model_values(
    trainer: ResumableTrainer,
    plan: Plan,
    document: Mapping[str, Any],
    arrays: Mapping[str, Array],
    source: str,
) -> dict[str, Array]:
    """Return the arrays of a file's model by their keys in `Plan.named`."""
    stored = {r["tensor"]: r["leaf"] for r in document["nodes"] if "tensor" in r}
    tensors = array_names(model_graph(trainer.model.architecture))
    missing = sorted(name for name in stored if name not in tensors.values())
    if missing:
        raise CheckpointError(
            f"{source} is of another model: it has {missing[0]!r}, which is not in this one"
        )
    values = {}
    for key, parameter in _own_values(trainer, plan).items():
        name = tensors[parameter]
        if stored.get(name) != parameter.op:
            raise CheckpointError(
                f"{source} is of another model: it has no {parameter.op} {name!r}"
            )
        values[key] = arrays[name]
    return values


def is_weighted(path: str | os.PathLike[str]) -> bool:
    """Return whether the training of a file had sample weights."""
    document = checkpoint.describe(path)
    return bool(checkpoint.require_training(document, os.fspath(path))["weighted"])
