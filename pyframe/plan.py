"""Plans: a graph made ready to run, and the train state that it runs on."""

from __future__ import annotations

import copy
import math
import threading
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cached_property
from itertools import chain, repeat
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from pyframe._native import ffi, lib
from pyframe.autodiff import Gradients, differentiate
from pyframe.building import building
from pyframe.errors import (
    ArgumentError,
    BusyError,
    DTypeError,
    FeedError,
    GraphError,
    UnusedParameterWarning,
    ValueReusedError,
    check_integer,
    raise_if_signalled,
    warn,
)
from pyframe.execution import (
    DONE,
    SECONDS_PER_LOOK,
    carry_on,
    check_feed,
    deliver,
    drive,
    give_up,
    launch,
    resolve_feed,
)
from pyframe.fusion import choose
from pyframe.graph import Graph, topological_order, with_collector_paused
from pyframe.lowering import Builder
from pyframe.node import (
    Array,
    Node,
    Parameter,
    Placeholder,
    Spec,
    State,
    Value,
    known_shape,
    plan_reference,
)
from pyframe.pattern import Pattern, pattern_of
from pyframe.program import Context, Program, Request, Specialization
from pyframe.state import TrainState, check_learning_rate
from pyframe.storage import (
    Segment,
    already_trained,
    hold,
    hold_all,
    new_hold,
    place,
    reading,
    refuse_while_reading,
)
from pyframe.strict import FixedList, Strict

if TYPE_CHECKING:
    from pyframe.loop import Loop
    from pyframe.profiler import Profile

SPECIALIZATIONS = 8  # kept, least recently used first to go


class Snapshot(NamedTuple):
    """A copy of a train state; see `Plan.snapshot`."""

    arrays: list[Array]
    step: int


COMPILED = "compile a new plan with it: pyframe.compile(...)"


class Plan(Strict):
    """A compiled graph. Made by `compile`.

    Attributes
    ----------
    graph : Graph
    parameters : list of Parameter
    states : list of State
    step_count : int
        Completed training steps.
    seed : int
        Of dropout and the like, when `step` is called by itself.
    """

    _attributes: ClassVar[dict[str, str]] = {
        "seed": "",
        "outputs": "name them in plan.run(..., outputs=[...])",
        **dict.fromkeys(
            ["cost", "metrics", "optimizer", "inspect", "detect_anomaly", "fuse"], COMPILED
        ),
        **dict.fromkeys(["graph", "parameters", "states"], COMPILED),
    }

    def __init__(
        self,
        cost: Value | None,
        outputs: Sequence[Value],
        extra: Sequence[Value],
        optimizer: Any,
        metrics: Sequence[Value],
        parameters: Sequence[Parameter] | None,
        inspect: bool,
        detect_anomaly: bool,
        seed: int,
        fuse: bool | Collection[str],
    ) -> None:
        self.cost = cost
        self.outputs = FixedList(outputs, self._attributes["outputs"])
        self.metrics = FixedList(metrics, COMPILED)
        self.optimizer, self.inspect, self.detect_anomaly = optimizer, inspect, detect_anomaly
        self.seed = seed
        # Fused, a value in between does not exist: neither to look at nor to check.
        self.fuse = choose(False if inspect or detect_anomaly else fuse)
        roots = [*([cost] if cost is not None else []), *outputs, *extra, *metrics]
        self.graph = Graph(roots)
        own = dict.fromkeys([*self.graph.parameters, *(parameters or [])])
        self.parameters = FixedList(own, COMPILED)
        self._begin()
        if optimizer is not None:
            if hasattr(optimizer, "check_groups"):
                optimizer.check_groups(self.parameters)
            self._warn_of_unused()
        if optimizer is not None or (inspect and cost is not None):
            self._train.train(self._trained())

    def _begin(self) -> None:
        """Make what belongs to this plan alone, and is not copied with it."""
        self.states: list[State] = FixedList(self.graph.states, COMPILED)
        self._names = {self.graph.names[p]: p for p in self.graph.placeholders}
        self._known = {p: name for name, p in self._names.items()}
        leaves = [*self.parameters, *self.states]
        place(leaves, [self.graph.names.get(p, p.label()) for p in leaves])
        self._train = TrainState(self.optimizer, self.parameters, self.states)
        self._cache: OrderedDict[Any, Specialization] = OrderedDict()
        self._lock = threading.Lock()
        # The context of the last run, for value(). In a list, since setting an attribute takes long
        # where it is guarded, and this is done in every step.
        self._latest: list[Context | None] = [None]
        self._stepper: Context | None = None
        # What the last feeds looked like, of `step` and of `run` with its arguments.
        self._step_pattern: Pattern | None = None
        self._run_pattern: tuple[Value | None, bool, bool, Pattern | None]
        self._run_pattern = None, False, True, None
        self._watch_changes()
        reference = plan_reference(self)
        for node in self.graph.order:
            node.belong_to(reference)

    # ---- copies ----

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy is made of; not what was computed last, which it has to run for."""
        snapshot = self.snapshot()
        names = "cost", "outputs", "metrics", "optimizer", "inspect", "detect_anomaly", "seed"
        return {
            "graph": self.graph,
            **{name: getattr(self, name) for name in (*names, "fuse", "parameters")},
            "trained": (self._train.slot_kinds, self._train.trained, self._train.groups),
            "_read": self._read_once,
            "snapshot": snapshot,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        (kinds, trained, groups), snapshot = state.pop("trained"), state.pop("snapshot")
        read_once = state.pop("_read")
        self.__dict__.update(state)
        self._begin()
        self._read_once = read_once
        self._train.slot_kinds = kinds  # as they were, whatever was set since
        if trained:
            self._train.train(trained, groups)
        self.restore(snapshot)

    def __copy__(self) -> Plan:
        """Return a plan with parameters of its own: two would train the same ones otherwise."""
        return copy.deepcopy(self)

    # ---- building ----

    @cached_property
    def gradients(self) -> Gradients | None:
        """The gradient nodes; made when they are first needed."""
        with building:
            # Another thread may have made them while this one waited.
            return self.__dict__.get("gradients") or self._differentiate()

    def _differentiate(self) -> Gradients | None:
        if self.cost is None:
            return None
        wanted: set[Node] = {p for p in self.graph.parameters if p.trainable or self.inspect}
        if self.inspect:
            wanted.update(p for p in self.graph.placeholders if p.dtype.kind == "f")
        return differentiate(self.cost, self.graph.order, wanted)

    def _trained(self) -> list[Parameter]:
        """Return the parameters that training changes, in the order of the graph."""
        assert self.cost is not None
        trainable = [p for p in self.parameters if p.trainable]
        if self.optimizer is not None and not self.optimizer.needs_gradients:
            reached = set(Graph([self.cost]).parameters)
            return [p for p in trainable if p in reached]
        assert self.gradients is not None
        return [p for p in trainable if (p, 0) in self.gradients.total]

    def _watch_changes(self) -> None:
        """Have the next step look whether what was lowered is still what is wanted."""
        self._read_once = self._read_now()
        forget = weakref.WeakMethod(self._forget_step)
        if hasattr(self.optimizer, "on_change"):
            self.optimizer.on_change(self._forget_step)
        for storage in self._train.storages:
            storage.on_freeze[:] = [r for r in storage.on_freeze if r() is not None]
            storage.on_freeze.append(forget)

    def _forget_step(self) -> None:
        self._step_pattern = None  # so that `step` goes by `_require_optimizer`

    def _read_now(self) -> dict[str, Any]:
        """Return what can be changed without the plan, and is lowered once and for all."""
        settings = getattr(self.optimizer, "settings", None)
        return {
            "trainable": [p.trainable for p in self.parameters],
            "group": [p.group for p in self.parameters],
            **(settings() if settings is not None else {}),
        }

    def _warn_of_unused(self) -> None:
        trained = set(self._trained())
        for parameter in self.parameters:
            if parameter.trainable and parameter not in trained:
                name = self.graph.names.get(parameter, parameter.label())
                warn(
                    f"the loss does not depend on parameter {name!r}: it gets no gradient and "
                    "stays as it is",
                    UnusedParameterWarning,
                )

    def _request(
        self, mode: str, outputs: list[Value], feeds: dict[Placeholder, Spec], training: bool
    ) -> Request:
        train = self._train
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
        if mode in ("train", "gradients", "evaluate"):
            request.cost = self.cost
        if mode in ("train", "evaluate"):
            request.records = list(self.metrics)
        if mode == "gradients" or (mode == "train" and self.optimizer.needs_gradients):
            assert self.gradients is not None
            total = self.gradients.total
            trained = train.trained or self._trained()
            request.gradients = [(p, total[p, 0], train.gradient_array(p)) for p in trained]
            if self.inspect:
                extra = [*total.values(), *self.gradients.contributions.values()]
                request.outputs = outputs + extra
        if mode == "train":
            train.lower(request)
        return request

    def _specialize(
        self, mode: str, outputs: list[Value], feeds: dict[Placeholder, Array], training: bool
    ) -> Specialization:
        shapes = tuple((id(p), a.shape) for p, a in feeds.items())
        wanted = tuple((id(v.node), v.index) for v in outputs)
        key = (mode, training, wanted, frozenset(shapes))
        found = self._cached(key)
        if found is not None:
            return found
        with building:
            found = self._cached(key)  # another thread may have made it while this one waited
            if found is not None:
                return found
            specs = {p: Spec(a.shape, a.dtype) for p, a in feeds.items()}
            made = with_collector_paused(
                lambda: Specialization(
                    Program(Builder(self._request(mode, list(outputs), specs, training))),
                    self._train.guards,
                )
            )
            with self._lock:
                self._cache[key] = made
                while len(self._cache) > SPECIALIZATIONS:
                    self._cache.popitem(last=False)
            return made

    def _cached(self, key: Any) -> Specialization | None:
        """Return a specialization that was made before, which then goes last."""
        with self._lock:
            found = self._cache.get(key)
            if found is not None:
                self._cache.move_to_end(key)
            return found

    def _feeds(self, feed: Mapping[Any, Any], values: Sequence[Value]) -> dict[Placeholder, Array]:
        """Return the arrays of the placeholders that some values depend on."""
        return self.check_feeds(self.resolve(feed), values)

    def resolve(self, feed: Mapping[Any, Any]) -> dict[Placeholder, Any]:
        """Return a feed with placeholders for keys, or raise `FeedError` for an unknown one."""
        return resolve_feed(feed, self._names, self._known)

    def check_feeds(
        self, given: Mapping[Placeholder, Any], values: Sequence[Value]
    ) -> dict[Placeholder, Array]:
        """Return the arrays that some values need, converted, or raise what is wrong with them."""
        needed = self._needed(tuple(values))
        missing = [self._known[p] for p in needed if p not in given]
        if missing:
            raise FeedError(
                f"placeholder {missing[0]!r} is not fed; "
                f"pass a feed with {', '.join(map(repr, (self._known[p] for p in needed)))}"
            )
        return {p: check_feed(p, self._known[p], given[p]) for p in needed}

    def _needed(self, values: tuple[Value, ...]) -> list[Placeholder]:
        key = tuple(id(v.node) for v in values)
        cache: dict[Any, list[Placeholder]] = self.__dict__.setdefault("_needed_cache", {})
        if key not in cache:
            order = topological_order(values)
            cache[key] = [node for node in order if isinstance(node, Placeholder)]
        return cache[key]

    @contextmanager
    def _context(self, specialization: Specialization) -> Iterator[Context]:
        """Lend a context for the length of a ``with`` block."""
        context = specialization.borrow()
        try:
            yield context
        except GeneratorExit:
            # A loop was thrown away unclosed, and the memory of its context perhaps before this.
            raise
        except BaseException:
            self._return(specialization, context)
            raise
        self._return(specialization, context)

    @property
    def _last(self) -> Context | None:
        return self._latest[0]

    def _return(self, specialization: Specialization, context: Context) -> None:
        self._latest[0] = context
        specialization.idle.append(context)

    def _refuse_if_taken(self) -> None:
        if any(lib.pf_guard_is_taken(guard.pointer) for guard in self._train.guards):
            raise already_trained()

    def claim(self) -> AbstractContextManager[Any]:
        """Claim the parameters for training until the end of a ``with`` block.

        Raises
        ------
        BusyError
            If another thread, or a fit further up in this one, is training them.
        """
        refuse_while_reading("a training step")
        return hold(self._train.guards, lib.PF_TO_TRAIN)

    # ---- running ----

    def step(self, feed: Mapping[Any, Any], learning_rate: float | None = None) -> float:
        """Take one training step: forward, backward, clip, update, in one call into C.

        Parameters
        ----------
        feed : dict of Placeholder (or its name) to array_like
        learning_rate : float, optional
            For this step only; otherwise the optimizer's.

        Returns
        -------
        float
            The loss before the update.

        Raises
        ------
        FeedError, ShapeError, DTypeError, LabelError, BusyError
            Nothing has changed then.

        Examples
        --------
        >>> import numpy as np, pyframe as pf
        >>> x = pf.Placeholder("x", shape=(None, 1))
        >>> w = pf.Parameter(np.ones((1, 1)), name="w")
        >>> plan = pf.compile(pf.L2Loss(2 * x, x @ w), optimizer=pf.optimizers.SGD(0.1))
        >>> plan.step({x: [[1.0], [2.0]]})
        2.5
        """
        pattern = self._step_pattern
        if pattern is not None and (buffers := pattern.match(feed)) is not None:
            specialization = pattern.specialization
        else:
            specialization, buffers = self._prepare_step(feed)
        rate = self.optimizer.learning_rate if learning_rate is None else learning_rate
        if type(rate) is not float or not 0.0 <= rate < math.inf:
            rate = self._train.rate_at(learning_rate)
        if reading.in_python_node or reading.paused_loops:
            refuse_while_reading("a training step")
        try:
            context = specialization.idle.pop()
        except IndexError as error:
            raise_if_signalled(error)
            self._refuse_if_taken()  # unless an exception came before it was brought back
            context = specialization.borrow()
        train, seed = self._train, self.seed
        try:
            # The context points to the feeds from here on, so they live as long as it does.
            # Nothing is called in between, and so nothing can interrupt.
            context.feeds = buffers
            status = launch(
                context.pointer, buffers, True, seed, train.step_count, rate, SECONDS_PER_LOOK
            )
            if status != DONE:
                carry_on(status, context, train, seed, rate, True)
            self._latest[0] = context
            return context.loss[0]  # type: ignore[no-any-return]
        except BaseException as error:
            give_up(context)
            if not isinstance(error, BusyError):
                self._latest[0] = context
            raise
        finally:
            specialization.idle.append(context)

    def _prepare_step(self, feed: Mapping[Any, Any]) -> tuple[Specialization, list[Any]]:
        """Check a feed, and return what runs it and its buffers in the order of the program."""
        self._require_optimizer()
        cost = self.cost
        assert cost is not None
        feeds = self._feeds(feed, [cost, *self.metrics])
        with self.claim():
            specialization = self._specialize("train", [], feeds, True)
        self._step_pattern = pattern_of(feed, self._known, specialization)
        return specialization, [ffi.from_buffer(feeds[p]) for p in specialization.program.feeds]

    def run(
        self,
        feed: Mapping[Any, Any],
        outputs: Value | Sequence[Value] | None = None,
        *,
        training: bool = False,
        out: Any = None,
    ) -> Any:
        """Run forward only.

        Parameters
        ----------
        feed : dict of Placeholder (or its name) to array_like
        outputs : Value or list of Value, optional
            What to return; default: what the plan was compiled for.
        training : bool, default False
            Whether dropout drops and batch statistics are used. Nothing is updated in any case.
        out : ndarray or list of ndarray, optional
            Where to put the results instead of into fresh arrays.

        Returns
        -------
        ndarray, or a list of them when several outputs were asked for

        Raises
        ------
        FeedError, ShapeError, DTypeError, LabelError, GraphError
        """
        kept, kept_training, single, pattern = self._run_pattern
        if (
            pattern is not None
            and outputs is kept
            and training is kept_training
            and (buffers := pattern.match(feed)) is not None
        ):
            return self._run(pattern.specialization, buffers, out, single)
        single, wanted = self._wanted(outputs)
        feeds = self._feeds(feed, wanted)
        # Batch statistics go to a shadow of the states, which a step would use as well.
        with self.claim() if training and self.states else nullcontext():
            specialization = self._specialize("run", wanted, feeds, training)
            buffers = [ffi.from_buffer(feeds[p]) for p in specialization.program.feeds]
            if training and self.states:
                return self._run(specialization, buffers, out, single)
        if outputs is None or isinstance(outputs, Value):  # a list could be another one next time
            pattern = pattern_of(feed, self._known, specialization)
            self._run_pattern = outputs, training, single, pattern
        return self._run(specialization, buffers, out, single)

    def _run(
        self, specialization: Specialization, buffers: list[Any], out: Any, single: bool
    ) -> Any:
        try:
            context = specialization.idle.pop()
        except IndexError as error:
            raise_if_signalled(error)
            context = specialization.borrow()
        self._latest[0] = context
        train, seed = self._train, self.seed
        try:
            context.feeds = buffers  # as in `step`
            status = launch(
                context.pointer, buffers, False, seed, train.step_count, 0.0, SECONDS_PER_LOOK
            )
            if status != DONE:
                carry_on(status, context, train, seed, 0.0, False)
            if single and out is None and (place := context.places[0]) is not None:
                return place.copy()
            results = [context.output(i) for i in range(len(context.program.output_ids))]
            return deliver(results, out, single)
        except BaseException:
            give_up(context)
            raise
        finally:
            specialization.idle.append(context)

    def _wanted(self, outputs: Any) -> tuple[bool, list[Value]]:
        if outputs is None:
            outputs = self.outputs or self.cost
            if isinstance(outputs, list) and len(outputs) == 1:
                outputs = outputs[0]
        single = isinstance(outputs, Value)
        wanted = _listed(outputs)
        for value in wanted:
            if not isinstance(value, Value):
                raise GraphError(f"{value!r} is no node; outputs are nodes of the compiled graph")
            if value.node not in self.graph.names:
                raise GraphError(
                    f"{value!r} is not part of this plan; "
                    "name it in pyframe.compile(..., outputs=[...])"
                )
        return single, wanted

    def loss_and_gradients(
        self, feed: Mapping[Any, Any], *, training: bool = True
    ) -> tuple[float, dict[Parameter, Array]]:
        """Return the loss and its gradient by each parameter; nothing is updated.

        Returns
        -------
        loss : float
        gradients : dict of Parameter to ndarray
            Of every trainable parameter that the loss depends on.

        Raises
        ------
        GraphError
            If the plan was compiled without a loss.
        """
        cost = self._require_cost()
        feeds = self._feeds(feed, [cost])
        with self.claim():
            specialization = self._specialize("gradients", [], feeds, training)
            with self._context(specialization) as context:
                context.bind(feeds)
                lib.pf_context_begin(context.pointer, self.seed, self._train.step, 0.0)
                drive(context)
                loss = float(context.read(context.program.cost_id))
                gradients = {
                    p: self._train.gradient_array(p).reshape(known_shape(p.spec)).copy()
                    for p in self._train.trained or self._trained()
                }
        return loss, gradients

    def loop(
        self,
        feeds: Mapping[Any, Any],
        *,
        epochs: int = 1,
        batch_size: int | None = None,
        shuffle: bool = True,
        seed: int = 0,
        learning_rates: Callable[[Array], Array] | None = None,
        first_epoch: int = 0,
        stop: str | None = None,
        training: bool = True,
        order: Callable[[int], Array] | None = None,
        claimed: bool = False,
    ) -> Loop:
        """Return a `Loop` that runs whole epochs in C.

        See Also
        --------
        pyframe.loop.Loop : for the arguments.
        """
        from pyframe.loop import Loop

        return Loop(
            self,
            feeds,
            epochs=epochs,
            batch_size=batch_size,
            shuffle=shuffle,
            seed=seed,
            learning_rates=learning_rates,
            first_epoch=first_epoch,
            stop=stop,
            training=training,
            order=order,
            claimed=claimed,
        )

    # ---- looking inside ----

    def value(self, of: Value) -> Array:
        """Return a copy of the array that a node computed in the last run.

        Raises
        ------
        ValueReusedError
            If its memory has been given to another value since; compile with ``inspect=True``.
        GraphError
            If nothing has run yet, or the node was not part of the last run.
        """
        if isinstance(of, Parameter):
            return of.value
        return self._read(of, "value")

    def gradient(self, of: Value) -> Array:
        """Return a copy of the loss's gradient by a node, from the last run that computed it.

        Raises
        ------
        GraphError
            If the loss does not depend on the node.
        ValueReusedError
            If it was not kept; compile with ``inspect=True``.
        """
        if self.gradients is None:
            raise GraphError("this plan was compiled without a loss; there are no gradients")
        _require_value(of, "gradient")
        if isinstance(of, Parameter) and of.trainable and (of, 0) in self.gradients.total:
            return self._train.gradient_array(of).reshape(known_shape(of.spec)).copy()
        total = self.gradients.total.get((of.node, of.index))
        if total is None:
            hint = "" if self.inspect else ", or it is no parameter: compile with inspect=True"
            raise GraphError(f"the loss has no gradient by {of.node.label()}{hint}")
        return self._read(total, "gradient", of)

    def contributions(self, node: Node) -> dict[Value, Array]:
        """Return what flows through a node to each of its inputs; a leaf has its whole gradient."""
        if self.gradients is None:
            raise GraphError("this plan was compiled without a loss; there are no gradients")
        _require_value(node, "gradient")
        if not node.inputs:
            return {node: self.gradient(node)}
        result: dict[Value, Array] = {}
        for i, source in enumerate(node.inputs):
            flowing = self.gradients.contributions.get((node, i))
            if source is not None and flowing is not None:
                array = self._read(flowing, "gradient", source)
                result[source] = result[source] + array if source in result else array
        return result

    def _read(self, value: Value, what: str, shown: Value | None = None) -> Array:
        _require_value(value, what)
        label = (value if shown is None else shown).node.label()
        context = self._last
        if context is None:
            raise GraphError(f"{label} has no {what} yet: run the plan first")
        with context.held() as is_held:
            if not is_held:
                raise ValueReusedError(f"the {what} of {label} is being computed by another run")
            program = context.program
            number = program.value_ids.get((value.node, value.index))
            if (value.node, value.index) in program.absorbed:
                raise ValueReusedError(
                    f"the {what} of {label} was not kept: the next node computes it on its way; "
                    "compile with inspect=True to keep them all"
                )
            if number is None:
                raise GraphError(f"{label} was not part of the last run, so it has no {what}")
            if number not in program.readable:
                raise ValueReusedError(
                    f"the {what} of {label} was not kept: its memory was given to a later value; "
                    "compile with inspect=True to keep them all"
                )
            return context.read(number).copy()

    @property
    def segments(self) -> list[Segment]:
        """The segment table of the flat buffers that hold parameters and states."""
        return [segment for storage in self._train.storages for segment in storage.segments]

    @property
    def step_count(self) -> int:
        """The number of completed training steps."""
        return self._train.step

    @property
    def skipped_steps(self) -> int:
        """How many of these have updated nothing, by an optimizer with ``nonfinite="skip"``."""
        return self._train.skipped

    def profile(
        self,
        feed: Mapping[Any, Any],
        mode: str | None = None,
        *,
        repeats: int = 20,
        threads: int = 1,
        learning_rate: float | None = None,
    ) -> Profile:
        """Time each instruction, and compare it with what the machine can do.

        Nothing is changed: parameters, states, optimizer slots and the step count are put back.

        Parameters
        ----------
        feed : dict of Placeholder (or its name) to array_like
        mode : {"step", "run", "gradients"}, optional
            What to profile; default: a training step, or without an optimizer a run.
        repeats : int, default 20
            Runs after the first one; each instruction's least time counts.
        threads : int, default 1
            How many to use; the machine's peaks are measured on one core and multiplied by it.
        learning_rate : float, optional
            As for `step`.

        Returns
        -------
        pyframe.profiler.Profile
            A sequence of records; print it, sort it, or write it with ``to_chrome_trace(path)``.

        Raises
        ------
        ArgumentError, FeedError, ShapeError, DTypeError, LabelError, GraphError, BusyError

        Examples
        --------
        >>> import numpy as np, pyframe as pf
        >>> x = pf.Placeholder("x", shape=(None, 8))
        >>> plan = pf.compile(pf.Softmax(x))
        >>> [record.kernel for record in plan.profile({x: np.ones((4, 8))}, repeats=2)]
        ['softmax_f32']
        """
        from pyframe.profiler import profile

        return profile(
            self, feed, mode, repeats=repeats, threads=threads, learning_rate=learning_rate
        )

    def snapshot(self) -> Snapshot:
        """Return a copy of parameters, states and optimizer slots, and the step count.

        It is of one moment: an update that another thread is writing is waited for.
        """
        with hold_all(self._train.guards):
            return self.held_snapshot()

    def held_snapshot(self) -> Snapshot:
        """Return a `snapshot` for somebody who keeps updates out already."""
        return Snapshot([a.copy() for a in self._train.all_arrays()], self._train.step)

    def restore(self, snapshot: Snapshot, also: Iterable[object] = ()) -> None:
        """Go back to a snapshot of this plan: all of it, whatever interrupts it, or nothing.

        Parameters
        ----------
        snapshot : Snapshot
        also : iterable, optional
            What is exhausted in the same moment; for what has to change with the parameters.

        Raises
        ------
        BusyError
            If another thread is training: its step would end on what it has not begun with.
        """
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

        Exceptions from signal handlers come between two calls, so what must not be torn apart is
        one call, and Python code is nowhere in it.
        """
        if not isinstance(snapshot, Snapshot):
            raise ArgumentError(f"{snapshot!r:.80} is no snapshot; pass what plan.snapshot() gave")
        train = self._train
        for guard in train.guards:
            guard.refuse_own()
        arrays = train.all_arrays()
        if len(arrays) != len(snapshot.arrays):
            raise ArgumentError("this is a snapshot of another plan")
        held = new_hold(train.guards, lib.PF_TO_RESTORE)
        write = map(np.ndarray.__setitem__, arrays, repeat(...), snapshot.arrays)
        count = map(lib.pf_restore_steps, (train.step_count,), (snapshot.step,))
        return chain(map(lib.pf_hold_take, (held,)), write, count, also), held

    def take_over(self, other: Plan) -> None:
        """Go on with what the optimizer of another plan over the same parameters has kept.

        What it keeps for a parameter is taken over for those that both plans train, and a number
        that it keeps for a run if the runs are the same. Of another optimizer nothing is: then the
        steps are counted from 0 again.
        """
        self.restore(self._taken_over(other))

    def _taken_over(self, other: Plan) -> Snapshot:
        """Return what `take_over` goes back to; whoever asks keeps updates out."""
        snapshot = self.held_snapshot()
        if self.optimizer is not other.optimizer:
            return snapshot
        kept = other.named(other.held_snapshot())
        same = [run[1:] for run in self._train.runs] == [run[1:] for run in other._train.runs]
        numbers = {
            f"slots/{n}/{i}" for n in self.optimizer.slots for i in range(len(self._train.runs))
        }
        for key, array in self.named(snapshot).items():
            found = kept.get(key)
            if found is not None and found.shape == array.shape and (same or key not in numbers):
                array[...] = found
        snapshot.arrays[-1][...] = other.skipped_steps
        return Snapshot(snapshot.arrays, other.step_count)

    def named(self, snapshot: Snapshot) -> dict[str, Array]:
        """Return the arrays of a snapshot by name, as views: see `TrainState.views`."""
        leaves = [*self.parameters, *self.states]
        names = {p: self.graph.names.get(p, p.label()) for p in leaves}
        return self._train.views(snapshot.arrays, names)

    # ---- the lesson's way: one node at a time ----

    def forward_node(self, node: Node) -> None:
        """Compute one node from what its inputs hold; placeholders hold what was set on them."""
        _require_value(node, "value")
        self._run_nodes([node])

    def backward_node(self, node: Node) -> None:
        """Compute the gradients that flow through one node."""
        _require_value(node, "gradient")
        if self.gradients is None:
            raise GraphError("this plan was compiled without a loss; there are no gradients")
        self._run_nodes(self.gradients.nodes.get(node, []))

    def _run_nodes(self, nodes: Sequence[Node]) -> None:
        if not self.inspect:
            raise GraphError("running single nodes needs a plan compiled with inspect=True")
        cost = self._require_cost()
        feeds = self._feeds(self.held_feed(), [cost])
        with self.claim():
            specialization = self._specialize("gradients", [], feeds, False)
            if self._stepper is None or self._stepper.program is not specialization.program:
                self._stepper = Context(specialization.program, [])
            context = self._latest[0] = self._stepper
            context.bind(feeds)
            position = context.program.position
            for at in sorted(position[n] for n in nodes if n in position):
                lib.pf_context_seek(context.pointer, at)
                drive(context, at + 1)

    def held_feed(self) -> dict[Placeholder, Any]:
        """Return what has been set on the placeholders by hand."""
        return {p: p.held for p in self.graph.placeholders if p.held is not None}

    # ---- helpers ----

    def _require_cost(self) -> Value:
        if self.cost is None:
            raise GraphError("this plan was compiled without a loss; pass one to pyframe.compile")
        return self.cost

    def _require_optimizer(self) -> None:
        self._require_cost()
        if self.optimizer is None:
            raise GraphError("this plan has no optimizer; pass one to pyframe.compile")
        change = self._change()
        if change:
            raise GraphError(f"{change} when this plan was compiled; compile it anew")

    def _require_unchanged(self) -> None:
        """Raise `BusyError` if somebody else has changed something while a fit began."""
        change = self._change()
        if change:
            raise BusyError(
                f"{change} when this fit began: another thread has changed it meanwhile; fit again"
            )

    def _change(self) -> str:
        """Return what was changed since it was lowered once and for all; empty: nothing."""
        now, then = self._read_now(), self._read_once
        if now == then:
            return ""
        for name in ("trainable", "group"):
            for parameter, is_now, was in zip(self.parameters, now[name], then[name], strict=True):
                if is_now != was:
                    return f"{name} of parameter {parameter.label()!r} is {is_now} and was {was}"
        name = next(name for name in now if now[name] != then[name])
        return f"{name} of {type(self.optimizer).__name__} is {now[name]} and was {then[name]}"

    def __repr__(self) -> str:
        return (
            f"<Plan of {len(self.graph.order)} nodes, {len(self.parameters)} parameters, "
            f"{len(self._cache)} specialization(s)>"
        )

    def __str__(self) -> str:
        from pyframe.printing import plan_table

        with self._lock:
            programs = [s.program for s in self._cache.values()]
        return plan_table(self, programs[-1] if programs else None)


def _require_value(value: Any, what: str) -> None:
    if not isinstance(value, Value):
        raise GraphError(f"{value!r:.80} is no node, and has no {what}; pass a node of this plan")


def _listed(nodes: Any) -> list[Any]:
    """Return one node, or several, as a list."""
    if isinstance(nodes, Value):
        return [nodes]
    try:
        return list(nodes)
    except TypeError as error:
        raise_if_signalled(error)
        raise GraphError(f"{nodes!r:.80} is no node, and no list of nodes") from error


def compile(
    cost: Value | Sequence[Value],
    optimizer: Any = None,
    *,
    outputs: Value | Sequence[Value] = (),
    metrics: Sequence[Value] = (),
    parameters: Sequence[Parameter] | None = None,
    inspect: bool = False,
    detect_anomaly: bool = False,
    seed: int = 0,
    fuse: bool | Collection[str] = True,
) -> Plan:
    """Make a graph ready to run.

    Parameters
    ----------
    cost : Value or list of Value
        The loss, a scalar. Without an optimizer any node, or a list of them: what `run` returns.
    optimizer : Optimizer, optional
        What `Plan.step` updates the parameters with.
    outputs : list of Value
        Further nodes that `Plan.run` may be asked for.
    metrics : list of metric nodes
        Computed with every step and added up over an epoch, in float64 whatever their dtype.
    parameters : list of Parameter, optional
        Parameters that belong to the model although this graph may not reach them.
    inspect : bool, default False
        Keep every value and gradient readable, at the price of memory.
    detect_anomaly : bool, default False
        Stop at the first node that gives NaN or infinity and name it.
    seed : int, default 0
        Of dropout and the like in `Plan.step`.
    fuse : bool or set of str, default True
        Which neighbours are joined to save passes over memory: all, none, or those named out of
        `pyframe.fusion.FUSIONS`. With `inspect` or `detect_anomaly` none are.

    Returns
    -------
    Plan

    Raises
    ------
    GraphError, ShapeError
        If the graph has a cycle, or the loss is no scalar.
    DTypeError
        If the loss to be minimized is not made of floats.
    ArgumentError
        If `optimizer` is a name or a class, or the seed is out of range.

    Warns
    -----
    UnusedParameterWarning
        For a parameter that the loss does not depend on.

    Examples
    --------
    >>> import numpy as np, pyframe as pf
    >>> x = pf.Placeholder("x", shape=(None, 3))
    >>> plan = pf.compile(pf.Sum(x * x))
    >>> plan.run({x: np.ones((2, 3))})
    array(6., dtype=float32)
    """
    if optimizer is not None and (
        isinstance(optimizer, type) or not hasattr(optimizer, "needs_gradients")
    ):
        raise ArgumentError(
            f"optimizer={optimizer!r} is no optimizer; pass one such as "
            "pyframe.optimizers.Adam(1e-3), or pyframe.optimizers.get('adam')"
        )
    check_integer("seed", seed, at_least=0, at_most=2**64 - 1)
    outputs = _listed(outputs)
    if optimizer is not None and not isinstance(cost, Value):
        raise GraphError("an optimizer needs one loss; add the losses up, or pass the sum")
    if isinstance(cost, Value):
        scalar = cost.shape in ((), None)
        trains = optimizer is not None or scalar
        loss, wanted = (cost if trains else None), [cost, *outputs]
    else:
        loss, wanted = None, [*_listed(cost), *outputs]
    metrics = _listed(() if metrics is None else metrics)
    for value in [*wanted, *metrics]:
        if not isinstance(value, Value):
            raise GraphError(f"compile takes nodes and got {type(value).__name__}: {value!r}")
    parameters = None if parameters is None else _listed(parameters)
    for parameter in parameters or ():
        if not isinstance(parameter, Parameter):
            raise GraphError(f"parameters has {parameter!r:.80}, which is no Parameter")
    if loss is not None and optimizer is not None and loss.dtype.kind != "f":
        raise DTypeError(
            f"the loss {loss.node.label()} is {loss.dtype.name}; only float32 and float64 can be "
            "differentiated"
        )
    wanted = [cost] if isinstance(cost, Value) else list(cost)
    extra = [v for v in outputs if v not in wanted]
    if optimizer is not None:
        check_learning_rate(optimizer)
    return with_collector_paused(
        lambda: Plan(
            loss,
            wanted,
            extra,
            optimizer,
            metrics,
            parameters,
            inspect,
            detect_anomaly,
            seed,
            fuse,
        )
    )
