"""The engine of a plan: its train state, and the programs for what it has been fed so far."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from itertools import chain, repeat
from typing import Any, NamedTuple

import numpy as np

from pyframe.engine import tables
from pyframe.engine.placement import place
from pyframe.engine.program import Context, Request, Specialization
from pyframe.engine.programs import Programs
from pyframe.engine.sharing import cut, whole
from pyframe.engine.state import Average, TrainState, views
from pyframe.errors import (
    ArgumentError,
    BusyError,
    FeedError,
    GraphError,
    ShapeError,
    UnusedParameterWarning,
    warn,
)
from pyframe.graph.arrays import LazyRows
from pyframe.graph.autodiff import Gradients, differentiate
from pyframe.graph.node import Node, Placeholder, Value
from pyframe.graph.order import Graph, topological_order
from pyframe.graph.parameter import Parameter, State
from pyframe.graph.spec import Array, Spec, convert, describe
from pyframe.native.building import building
from pyframe.native.core import ffi, lib
from pyframe.native.guards import already_trained, hold, hold_all, new_hold, refuse_while_reading
from pyframe.native.launcher import Launcher
from pyframe.strict import FixedList


class Snapshot(NamedTuple):
    """A copy of a train state; see `Plan.snapshot`."""

    arrays: list[Array]
    step: int


COMPILED = "compile a new plan with it: pyframe.compile(...)"


def _change_of(name: str, leaves: Sequence[Node], now: Sequence[Any], then: Sequence[Any]) -> str:
    """Return what has changed of some parameters, or states; empty if nothing has."""
    kind = "state" if name == "frozen" else "parameter"
    for leaf, is_now, was in zip(leaves, now, then, strict=True):
        if is_now != was:
            return f"{name} of {kind} {leaf.label()!r} is {is_now} and was {was}"
    return ""


def _nodes_of(values: Iterable[Value]) -> tuple[int, ...]:
    """Return the ids of the nodes of some values, each once: what these depend on."""
    return tuple(dict.fromkeys([id(v.node) for v in values]))


def _checked_heads(
    given: dict[Placeholder, Any], check: Callable[[dict[Placeholder, Any]], dict[Placeholder, Any]]
) -> dict[Placeholder, Any]:
    """Return checked feeds, and of those that are lazy, whose first row is checked, themselves."""
    lazy = {p: v for p, v in given.items() if isinstance(v, LazyRows)}
    found = check({**given, **{p: v[:1] for p, v in lazy.items()}})
    return {p: lazy.get(p, array) for p, array in found.items()}


class Engine:
    """What a plan, its loops and its profiler run on.

    It takes feeds and hands out contexts: `feeds_of` checks what was fed, `specialize` gives the
    program for its shapes, `context` lends what runs it, and `claim` keeps others from training.

    Attributes
    ----------
    graph : Graph
    cost, optimizer : Value and Optimizer, optional
    metrics, parameters, states : lists of Value, Parameter and State
    inspect, detect_anomaly : bool
    fuse : frozenset of str
    state : TrainState
        Parameters, gradients, states and slots in their flat buffers, and the step count.
    names, known : dict of str to Placeholder, and back
    programs : Programs
    last : list of one Context, or of None
        That of the last run; see `latest`.
    step_launcher : Launcher, optional
        What the last feed of a step looked like; None as soon as something has changed.
    run_launcher : Launcher, optional
        What the last feed of a run for all outputs looked like.
    """

    def __init__(
        self,
        roots: Sequence[Value],
        cost: Value | None,
        optimizer: Any,
        metrics: Sequence[Value],
        parameters: Sequence[Parameter] | None,
        *,
        inspect: bool,
        detect_anomaly: bool,
        fuse: frozenset[str],
    ) -> None:
        self.cost, self.optimizer = cost, optimizer
        self.metrics = FixedList(metrics, COMPILED)
        self.inspect, self.detect_anomaly, self.fuse = inspect, detect_anomaly, fuse
        self.graph = Graph(roots)
        own = dict.fromkeys([*self.graph.parameters, *(parameters or [])])
        self.parameters = FixedList(own, COMPILED)
        self._begin()
        if optimizer is not None:
            if hasattr(optimizer, "check_groups"):
                optimizer.check_groups(self.parameters)
            self._warn_of_unused()
        if optimizer is not None or (inspect and cost is not None):
            trained = self.trained_parameters()
            found = tables.choose(self.state, lambda: self.gradients, trained, fuse)
            self.state.train(trained, None, found)

    def _begin(self) -> None:
        """Make what belongs to this engine alone, and is not copied with it."""
        self.states: list[State] = FixedList(self.graph.states, COMPILED)
        self.names = {self.graph.names[p]: p for p in self.graph.placeholders}
        self.known = {p: name for name, p in self.names.items()}
        leaves = [*self.parameters, *self.states]
        place(leaves, [self.graph.names.get(p, p.label()) for p in leaves])
        self.state = TrainState(self.optimizer, self.parameters, self.states)
        self.programs = Programs(self.state.guards)
        self._needs = {_nodes_of(self.graph.outputs): self.graph.placeholders}
        self._gradients: Gradients | None = None
        self._differentiated = False
        self._given: tuple[Placeholder, dict[Parameter, Placeholder]] | None = None
        # In a list: every step sets it, and setting an attribute takes five times as long.
        self.last: list[Context | None] = [None]
        self.step_launcher: Launcher | None = None
        self.run_launcher: Launcher | None = None
        self._watch_changes()

    # ---- copies ----

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy is made of; not what was computed last, which it has to run for."""
        snapshot, train = self.snapshot(), self.state
        names = "graph", "cost", "metrics", "optimizer", "inspect", "detect_anomaly", "fuse"
        return {
            "parameters": self.parameters,
            **{name: getattr(self, name) for name in names},
            "trained": (train.slot_kinds, train.trained, train.groups, train.ranks),
            "tables": (list(train.tables.by_rows), train.tables.whole, train.tables.lazy),
            "_read": self._read_once,
            "snapshot": snapshot,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        (kinds, trained, groups, ranks), snapshot = state.pop("trained"), state.pop("snapshot")
        read_once, kept = state.pop("_read"), state.pop("tables")
        self.__dict__.update(state)
        self._begin()
        self._read_once = read_once
        self.state.slot_kinds = kinds  # as they were, whatever was set since
        self.state.ranks = ranks
        if trained:
            self.state.train(trained, groups, tables.chosen(lambda: self.gradients, *kept))
        self.restore(snapshot)

    # ---- gradients ----

    @property
    def gradients(self) -> Gradients | None:
        """The gradient nodes; made when they are first needed."""
        # No cached_property: before Python 3.12 that has a lock of its own, for all engines, and a
        # thread that builds would wait for one that has it and waits for the lock to build.
        if not self._differentiated:
            with building:
                if not self._differentiated:  # another thread may have done it meanwhile
                    self._gradients = self._differentiate()
                    self._differentiated = True
        return self._gradients

    def _differentiate(self) -> Gradients | None:
        if self.cost is None:
            return None
        wanted: set[Node] = {p for p in self.graph.parameters if p.trainable or self.inspect}
        if self.inspect:
            wanted.update(p for p in self.graph.placeholders if p.dtype.kind == "f")
        return differentiate(self.cost, self.graph.order, wanted)

    def trained_parameters(self) -> list[Parameter]:
        """Return the parameters that training changes, in the order of the graph."""
        assert self.cost is not None
        trainable = [p for p in self.parameters if p.trainable]
        if self.optimizer is not None and not self.optimizer.needs_gradients:
            reached = set(Graph([self.cost]).parameters)
            return [p for p in trainable if p in reached]
        assert self.gradients is not None
        return [p for p in trainable if (p, 0) in self.gradients.total]

    def _warn_of_unused(self) -> None:
        trained = set(self.trained_parameters())
        for parameter in self.parameters:
            if parameter.trainable and parameter not in trained:
                name = self.graph.names.get(parameter, parameter.label())
                warn(
                    f"the loss does not depend on parameter {name!r}: it gets no gradient and "
                    "stays as it is",
                    UnusedParameterWarning,
                )

    # ---- what may change without it ----

    def _watch_changes(self) -> None:
        """Make the next step check whether what was lowered is still what is wanted."""
        self._read_once = self._read_now()
        forget = weakref.WeakMethod(self._forget_step)
        if hasattr(self.optimizer, "on_change"):
            self.optimizer.on_change(self._forget_step)
        for storage in self.state.storages:
            storage.on_freeze[:] = [r for r in storage.on_freeze if r() is not None]
            storage.on_freeze.append(forget)

    def _forget_step(self) -> None:
        self.step_launcher = None  # so that the next step goes by `require_optimizer`

    def _read_now(self) -> dict[str, Any]:
        """Return the settings that users can change at any time, but that are lowered only once."""
        settings = getattr(self.optimizer, "settings", None)
        return {
            "trainable": [p.trainable for p in self.parameters],
            "group": [p.group for p in self.parameters],
            "constraint": [p.constraint for p in self.parameters],
            "frozen": [s.frozen for s in self.states],
            **(settings() if settings is not None else {}),
        }

    def change(self) -> str:
        """Say which of those settings has changed since it was lowered; empty if none has."""
        now, then = self._read_now(), self._read_once
        if now == then:
            return ""
        for name in ("trainable", "group", "constraint", "frozen"):
            leaves = self.states if name == "frozen" else self.parameters
            if found := _change_of(name, leaves, now[name], then[name]):
                return found
        name = next(name for name in now if now[name] != then[name])
        return f"{name} of {type(self.optimizer).__name__} is {now[name]} and was {then[name]}"

    def require_cost(self) -> Value:
        """Return the loss, or raise `GraphError` if there is none."""
        if self.cost is None:
            raise GraphError("this plan was compiled without a loss; pass one to pyframe.compile")
        return self.cost

    def require_optimizer(self) -> None:
        """Raise `GraphError` if it cannot train, or no longer as it was compiled."""
        self.require_cost()
        if self.optimizer is None:
            raise GraphError("this plan has no optimizer; pass one to pyframe.compile")
        change = self.change()
        if change:
            raise GraphError(f"{change} when this plan was compiled; compile it anew")

    def require_unchanged(self) -> None:
        """Raise `BusyError` if somebody else has changed something while a fit began."""
        change = self.change()
        if change:
            raise BusyError(
                f"{change} when this fit began: another thread has changed it meanwhile; fit again"
            )

    # ---- programs ----

    def specialize(
        self,
        mode: str,
        outputs: list[Value],
        feeds: dict[Placeholder, Array],
        training: bool,
        averages: Sequence[Average] = (),
        any_rows: bool = False,
    ) -> Specialization:
        """Return the program for the shapes of some feeds, made at the first that needs it.

        Parameters
        ----------
        mode : {"train", "accumulate", "share", "apply", "gradients", "evaluate", "run"}
            "apply" is a step on gradients that are fed; see `given`. "accumulate" is one that runs
            in parts, "share" one of which other processes run the other parts.
        outputs : list of Value
            Of a step that runs in parts: what `TrainState.lower` takes.
        feeds : dict of Placeholder to ndarray
        training : bool
            Whether dropout drops and batch statistics are used.
        averages : list of Average
            To which a step adds its result.
        any_rows : bool
            Whether the caller tells contexts how many rows there are.
        """
        wanted = tuple((id(v.node), v.index) for v in outputs)
        still = tuple(s.frozen for s in self.states) if training else ()

        def ask(specs: dict[Placeholder, Spec]) -> Request:
            request = self._request(mode, list(outputs), specs, training)
            for average in averages:
                request.update += average.calls()
            return request

        key = (mode, training, still, wanted, *averages)
        specs = {p: Spec(a.shape, a.dtype) for p, a in feeds.items()}
        return self.programs.take(key, specs, ask, any_rows and not self.inspect)

    def _request(
        self, mode: str, outputs: list[Value], feeds: dict[Placeholder, Spec], training: bool
    ) -> Request:
        train = self.state
        request = Request(
            outputs=outputs,
            feeds=feeds,
            names=self.graph.names,
            training=training,
            parameter_arrays=train.parameter_arrays(),
            keep_all=self.inspect,
            detect_anomaly=self.detect_anomaly,
            fuse=self.fuse,
        )
        if training and self.states:
            request.state_arrays = train.shadow_arrays()
            request.before += train.shadow_calls()
        trains = mode in ("train", "accumulate", "share")
        request.together = train if mode == "share" else None
        if trains or mode in ("gradients", "evaluate"):
            request.cost = self.cost
        if trains or mode == "evaluate":
            request.records = list(self.metrics)
        if mode == "gradients" or (trains and self.optimizer.needs_gradients):
            assert self.gradients is not None
            total = self.gradients.total
            trained = train.trained or self.trained_parameters()
            rest = tables.take(train.tables, request, trained) if mode == "train" else trained
            request.gradients = [(p, total[p, 0], train.gradient_array(p)) for p in rest]
            if self.inspect:
                extra = [*total.values(), *self.gradients.contributions.values()]
                request.outputs = outputs + extra
        if mode == "apply":
            request.cost, given = self.given()
            request.gradients = [(p, given[p], train.gradient_array(p)) for p in train.trained]
        if trains or mode == "apply":
            sums = outputs[0] if outputs else None
            train.lower(request, sums, shared=mode == "share")
        if mode == "apply":
            request.again.clear()  # wherever they were taken
        return request

    def given(self) -> tuple[Placeholder, dict[Parameter, Placeholder]]:
        """Return what a step on given gradients is fed: a loss, which nothing reads, and those."""
        if self._given is None:
            names = self.graph.names
            gradients = {
                p: Placeholder(f"gradient of {names.get(p, p.label())}", p.shape, p.dtype)
                for p in self.state.trained
            }
            self._given = Placeholder("loss", shape=(), dtype="float64"), gradients
        return self._given

    @property
    def latest(self) -> Context | None:
        """The context of the last run."""
        return self.last[0]

    # ---- feeds ----

    def feeds_of(
        self, feed: Mapping[Any, Any], values: Sequence[Value]
    ) -> dict[Placeholder, Array]:
        """Return the arrays of the placeholders that some values depend on."""
        return self.check_feeds(self.resolve(feed), values)

    def resolve(self, feed: Mapping[Any, Any]) -> dict[Placeholder, Any]:
        """Return a feed with placeholders for keys, or raise `FeedError` for an unknown one."""
        return resolve_feed(feed, self.names, self.known)

    def check_feeds(
        self, given: Mapping[Placeholder, Any], values: Sequence[Value]
    ) -> dict[Placeholder, Array]:
        """Return the arrays that some values need, converted, or raise what is wrong with them."""
        needed = self._needed(tuple(values))
        missing = [self.known[p] for p in needed if p not in given]
        if missing:
            raise FeedError(
                f"placeholder {missing[0]!r} is not fed; "
                f"pass a feed with {', '.join(map(repr, (self.known[p] for p in needed)))}"
            )
        return {p: check_feed(p, self.known[p], given[p]) for p in needed}

    def row_feeds(self, feed: Mapping[Any, Any]) -> dict[Placeholder, Array]:
        """Return the arrays that loss and metrics need, checked, all with one number of rows.

        Of `LazyRows` the first row is checked, and they stay what they are.

        Raises
        ------
        ArgumentError, ShapeError, FeedError, DTypeError
        """
        roots = [*([self.cost] if self.cost is not None else []), *self.metrics]
        arrays = _checked_heads(self.resolve(feed), lambda given: self.check_feeds(given, roots))
        if not arrays:
            raise ArgumentError("a loop needs at least one placeholder to take its rows from")
        _check_rows({self.known[p]: array for p, array in arrays.items()})
        return arrays

    def _needed(self, values: tuple[Value, ...]) -> list[Placeholder]:
        key = _nodes_of(values)
        if key not in self._needs:
            order = topological_order(values)
            self._needs[key] = [node for node in order if isinstance(node, Placeholder)]
        return self._needs[key]

    # ---- running ----

    @contextmanager
    def context(self, specialization: Specialization) -> Iterator[Context]:
        """Lend a context for the length of a ``with`` block."""
        context = specialization.borrow()
        try:
            yield context
        except GeneratorExit:
            raise  # a loop that was never closed is collected; its context may be gone already
        except BaseException:
            self._return(specialization, context)
            raise
        self._return(specialization, context)

    def _return(self, specialization: Specialization, context: Context) -> None:
        self.last[0] = context
        specialization.give_back(context)

    def claim(self) -> AbstractContextManager[Any]:
        """Claim the parameters for training; see `Plan.claim`."""
        refuse_while_reading("a training step")
        return hold(self.state.guards, lib.PF_TO_TRAIN)

    # ---- snapshots ----

    def snapshot(self) -> Snapshot:
        """Return a copy of the train state, of one moment; see `Plan.snapshot`."""
        with hold_all(self.state.guards):
            return self.held_snapshot()

    def held_snapshot(self) -> Snapshot:
        """Return a `snapshot`; the caller keeps updates out already."""
        return Snapshot([a.copy() for a in self.state.all_arrays()], self.state.step)

    def restore(self, snapshot: Snapshot, also: Iterable[object] = ()) -> None:
        """Go back to a snapshot, all of it or nothing; see `Plan.restore`."""
        undo, held = self.prepare_restoring(snapshot, also)
        try:
            if not lib.pf_hold_take(held):
                raise already_trained()
            deque(undo, maxlen=0)
        finally:
            ffi.release(held)

    def prepare_restoring(
        self, snapshot: Snapshot, also: Iterable[object] = ()
    ) -> tuple[Iterator[object], Any]:
        """Return what goes back to a snapshot when it is exhausted, and the locks, to be released.

        A signal handler may raise an exception between any two calls, so what must not be torn
        apart is a single call, without Python code in it.
        """
        if not isinstance(snapshot, Snapshot):
            raise ArgumentError(f"{snapshot!r:.80} is no snapshot; pass what plan.snapshot() gave")
        train = self.state
        for guard in train.guards:
            guard.refuse_own()
        arrays = train.all_arrays()
        if len(arrays) != len(snapshot.arrays):
            raise ArgumentError("this is a snapshot of another plan")
        held = new_hold(train.guards, lib.PF_TO_RESTORE)
        write = map(np.ndarray.__setitem__, arrays, repeat(...), snapshot.arrays)
        count = map(lib.pf_restore_steps, (train.step_count,), (snapshot.step,))
        return chain(map(lib.pf_hold_take, (held,)), write, count, also), held

    def take_over(self, other: Engine) -> None:
        """Go on with what another engine's optimizer has kept; see `Plan.take_over`."""
        self.restore(self.taken_over(other))

    def taken_over(self, other: Engine) -> Snapshot:
        """Return the snapshot that `take_over` restores; the caller keeps updates out."""
        snapshot = self.held_snapshot()
        if self.optimizer is not other.optimizer:
            return snapshot
        kept = other.named(other.held_snapshot())
        same = [span[1:] for span in self.state.spans] == [span[1:] for span in other.state.spans]
        numbers = {
            f"slots/{n}/{i}" for n in self.optimizer.slots for i in range(len(self.state.spans))
        }
        own = self.named(snapshot)
        fits = {k: a for k, a in kept.items() if k in own and a.shape == own[k].shape}
        self.set_named(snapshot, {k: a for k, a in fits.items() if same or k not in numbers})
        snapshot.arrays[-1][...] = other.state.skipped
        return Snapshot(snapshot.arrays, other.state.step)

    def named(self, snapshot: Snapshot) -> dict[str, Array]:
        """Return the arrays of a snapshot by name; see `views`.

        They are parts of the snapshot; slots that ranks have shares of are copies of the whole.
        """
        return self._by_name(whole(self.state, snapshot.arrays))

    def set_named(self, snapshot: Snapshot, values: Mapping[str, Array]) -> None:
        """Write values into a snapshot, by the names that `named` gives."""
        arrays = whole(self.state, snapshot.arrays)
        named = self._by_name(arrays)
        for key, value in values.items():
            named[key][...] = value
        cut(self.state, arrays, snapshot.arrays)

    def _by_name(self, arrays: Sequence[Array]) -> dict[str, Array]:
        leaves = [*self.parameters, *self.states]
        names = {p: self.graph.names.get(p, p.label()) for p in leaves}
        return views(self.state, arrays, names)


def check_feed(placeholder: Placeholder, name: str, value: Any) -> Array:
    """Return a fed value as the array that the kernels read, or raise what is wrong with it."""
    array = convert(value, placeholder.dtype, f"placeholder {name!r}")
    shape = placeholder.shape
    if shape is None:
        return array
    if array.ndim == 1 and len(shape) == 2 and shape[1] == 1:
        array = array.reshape(-1, 1)  # one-dimensional targets are a column
    fits = array.ndim == len(shape) and all(
        want is None or want == got for want, got in zip(shape, array.shape, strict=True)
    )
    if not fits:
        raise ShapeError(
            f"placeholder {name!r} has shape {describe(shape)} and was fed "
            f"{describe(array.shape)}; reshape the array or declare the placeholder differently"
        )
    return array


def resolve_feed(
    feed: Mapping[Any, Any], names: Mapping[str, Placeholder], known: Mapping[Placeholder, str]
) -> dict[Placeholder, Any]:
    """Return the feed with placeholders for keys, which may also be given by name."""
    if not isinstance(feed, Mapping):
        raise FeedError(
            f"a feed is a dict of placeholders to arrays, and got {type(feed).__name__}; "
            f"write {{x: array}}; this graph takes {', '.join(map(repr, names))}"
        )
    result: dict[Placeholder, Any] = {}
    for key, value in feed.items():
        placeholder = names.get(key) if isinstance(key, str) else key
        if placeholder is None or placeholder not in known:
            given = key if isinstance(key, str) else getattr(key, "name", None) or key
            raise FeedError(
                f"{given!r} is fed but is no placeholder of this graph; "
                f"it takes {', '.join(map(repr, names)) or 'nothing'}"
            )
        result[placeholder] = value
    return result


def _check_rows(arrays: Mapping[str, Array]) -> None:
    """Raise `ShapeError` or `ArgumentError` unless arrays have the same number of rows, not 0."""
    rows: dict[str, int] = {}
    for name, array in arrays.items():
        if array.ndim == 0:
            raise ShapeError(f"placeholder {name!r} was fed a number; a loop takes rows from it")
        rows[name] = len(array)
    if len(set(rows.values())) > 1:
        text = ", ".join(f"{name!r} {count}" for name, count in rows.items())
        raise ShapeError(
            f"the numbers of rows differ: {text}; every sample needs its own row in each"
        )
    if not next(iter(rows.values())):
        raise ArgumentError(f"there are no rows: {', '.join(map(repr, rows))} got empty arrays")
