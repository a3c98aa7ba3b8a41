"""Plans: a graph made ready to run, and the train state that it runs on."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from pyframe.engine import inspection
from pyframe.engine.engine import COMPILED, Engine, Snapshot, check_feed
from pyframe.engine.execution import drive, form_of, launcher_of
from pyframe.engine.fusion import choose
from pyframe.engine.loop import Loop
from pyframe.engine.printing import plan_table
from pyframe.engine.program import Specialization
from pyframe.engine.state import check_learning_rate
from pyframe.errors import (
    ArgumentError,
    DTypeError,
    GraphError,
    check_integer,
    raise_if_signalled,
)
from pyframe.graph.autodiff import Gradients
from pyframe.graph.node import Node, Placeholder, Value, plan_reference
from pyframe.graph.order import Graph, with_collector_paused
from pyframe.graph.parameter import Parameter, State
from pyframe.graph.spec import Array, known_shape
from pyframe.graph.storage import Segment
from pyframe.native.core import lib
from pyframe.native.guards import reading, refuse_while_reading
from pyframe.native.launcher import Launcher
from pyframe.spelling import answering
from pyframe.strict import FixedList, Strict

if TYPE_CHECKING:
    from pyframe.engine.profiler import Profile


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

    Examples
    --------
    >>> import pyframe as pf
    >>> x = pf.Placeholder("x", shape=(None,))
    >>> pf.compile(pf.Sum(x)).run({x: [1.0, 2.0]}).item()
    3.0
    """

    _attributes: ClassVar[dict[str, str]] = {
        "seed": "",
        "outputs": "name them in plan.run(..., outputs=[...])",
        **dict.fromkeys(
            ["cost", "metrics", "optimizer", "inspect", "detect_anomaly", "fuse"], COMPILED
        ),
        **dict.fromkeys(["engine", "graph", "parameters", "states"], COMPILED),
    }
    _checks: ClassVar[dict[str, Callable[[Any], Any]]] = {
        "seed": lambda seed: check_integer("seed", seed, at_least=0, at_most=2**64 - 1)
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
        # Fused, a value in between does not exist: neither to look at nor to check.
        fusions = choose(False if inspect or detect_anomaly else fuse)
        self.engine = Engine(
            [*([cost] if cost is not None else []), *outputs, *extra, *metrics],
            cost,
            optimizer,
            metrics,
            parameters,
            inspect=inspect,
            detect_anomaly=detect_anomaly,
            fuse=fusions,
        )
        self.outputs = FixedList(outputs, self._attributes["outputs"])
        self.seed = seed
        self._begin()

    def _begin(self) -> None:
        """Make what belongs to this plan alone, and is not copied with it."""
        self._stepper = inspection.Stepper(self.engine)
        # What takes steps with converted feeds, for the specialization that the last one needed.
        self._checked_step: tuple[Specialization | None, Launcher | None] = None, None
        # What runs feeds like the last one of `run`, with its arguments.
        self._run_launcher: tuple[Value | None, bool, Launcher | None] = None, False, None
        reference = plan_reference(self)
        for node in self.graph.order:
            node.belong_to(reference)

    # ---- copies ----

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy is made of; not what was computed last, which it has to run for."""
        return {"engine": self.engine, "outputs": self.outputs, "seed": self.seed}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._begin()

    def __copy__(self) -> Plan:
        """Return a plan with parameters of its own: two would train the same ones otherwise."""
        return copy.deepcopy(self)

    # ---- what it was compiled from ----

    @property
    def cost(self) -> Value | None:
        """The loss, if there is one."""
        return self.engine.cost

    @property
    def metrics(self) -> list[Value]:
        """What is counted beside the loss."""
        return self.engine.metrics

    @property
    def optimizer(self) -> Any:
        """What `step` updates the parameters by."""
        return self.engine.optimizer

    @property
    def inspect(self) -> bool:
        """Whether every value and gradient is kept."""
        return self.engine.inspect

    @property
    def detect_anomaly(self) -> bool:
        """Whether a run stops at the first node that gives NaN or infinity."""
        return self.engine.detect_anomaly

    @property
    def fuse(self) -> frozenset[str]:
        """The fusions that are made."""
        return self.engine.fuse

    @property
    def graph(self) -> Graph:
        """All nodes, in the order in which they run."""
        return self.engine.graph

    @property
    def parameters(self) -> list[Parameter]:
        """Those that the graph depends on, and further ones that were given."""
        return self.engine.parameters

    @property
    def states(self) -> list[State]:
        """Arrays that nodes keep from step to step."""
        return self.engine.states

    @property
    def gradients(self) -> Gradients | None:
        """The gradient nodes; made when they are first needed."""
        return self.engine.gradients

    # ---- feeds ----

    def resolve(self, feed: Mapping[Any, Any]) -> dict[Placeholder, Any]:
        """Return a feed with placeholders for keys, or raise `FeedError` for an unknown one."""
        return self.engine.resolve(feed)

    def check_feeds(
        self, given: Mapping[Placeholder, Any], values: Sequence[Value]
    ) -> dict[Placeholder, Array]:
        """Return the arrays that some values need, converted, or raise what is wrong with them."""
        return self.engine.check_feeds(given, values)

    def claim(self) -> AbstractContextManager[Any]:
        """Claim the parameters for training until the end of a ``with`` block.

        Raises
        ------
        BusyError
            If another thread, or a fit further up in this one, is training them.
        """
        return self.engine.claim()

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
        engine = self.engine
        launcher, checked = engine.step_launcher, False
        if launcher is None:
            launcher, feed = self._prepare_step(feed)
            checked = True
        rate = engine.optimizer.learning_rate if learning_rate is None else learning_rate
        if type(rate) is not float or not 0.0 <= rate < math.inf:
            rate = engine.state.rate_at(learning_rate)
        if reading.in_python_node or reading.paused_loops:
            refuse_while_reading("a training step")
        loss = launcher.step(feed, self.seed, rate, checked)
        if loss is None:
            launcher, feed = self._prepare_step(feed)
            loss = launcher.step(feed, self.seed, rate, True)
            assert loss is not None  # it is checked
        return loss

    def _prepare_step(self, feed: Mapping[Any, Any]) -> tuple[Launcher, Mapping[Any, Any]]:
        """Check a feed; return what takes steps with feeds like it, and the feed for that."""
        engine = self.engine
        engine.require_optimizer()
        feeds = engine.feeds_of(feed, [engine.require_cost(), *engine.metrics])
        with engine.claim():
            specialization = engine.specialize("train", [], feeds, True, any_rows=True)
        form = form_of(feed, engine.known, specialization.program)
        known, launcher = self._checked_step
        if form is not None or known is not specialization or launcher is None:
            launcher = launcher_of(
                specialization, form, feeds, engine.state, engine.last, training=True
            )
        if form is None:
            self._checked_step = specialization, launcher
            return launcher, feeds
        engine.step_launcher = launcher
        return launcher, feed

    def apply_gradients(
        self, gradients: Mapping[Any, Any], learning_rate: float | None = None
    ) -> None:
        """Take one training step on given gradients: clip, update, in one call into C.

        For loops of one's own, with `loss_and_gradients`: gradients that are summed over several
        batches, come from another process, or are changed before they are used.

        Parameters
        ----------
        gradients : dict of Parameter (or its name) to array_like
            One of its shape for each parameter that is trained.
        learning_rate : float, optional
            For this step only; otherwise the optimizer's.

        Raises
        ------
        ArgumentError
            If a gradient is missing or too many, or the optimizer takes none.
        ShapeError, DTypeError, BusyError, GraphError, AnomalyError
            Nothing has changed then.

        Examples
        --------
        Gradient accumulation:

        >>> import numpy as np, pyframe as pf
        >>> x = pf.Placeholder("x", shape=(None, 1))
        >>> w = pf.Parameter(np.ones((1, 1)), name="w")
        >>> plan = pf.compile(pf.L2Loss(2 * x, x @ w), optimizer=pf.optimizers.SGD(0.1))
        >>> total = {w: 0.0}
        >>> for batch in ([[1.0]], [[2.0]]):
        ...     loss, gradients = plan.loss_and_gradients({x: batch})
        ...     total = {p: total[p] + g / 2 for p, g in gradients.items()}
        >>> plan.apply_gradients(total)
        >>> plan.step_count, w.value
        (1, array([[1.5]], dtype=float32))
        """
        engine = self.engine
        engine.require_optimizer()
        if not engine.optimizer.needs_gradients:
            raise ArgumentError(f"{engine.optimizer!r} looks at losses, and takes no gradients")
        if engine.optimizer is not None and engine.optimizer.evaluates:
            raise ArgumentError(f"{engine.optimizer!r} evaluates the loss, and takes no gradients")
        loss, wanted = engine.given()
        names = {engine.graph.names.get(p, p.label()): p for p in wanted}
        if not isinstance(gradients, Mapping):
            raise ArgumentError(
                f"gradients is a {type(gradients).__name__}; pass a dict of parameters to arrays"
            )
        given = {names.get(k, k) if isinstance(k, str) else k: g for k, g in gradients.items()}
        wrong = [key for key in given if key not in wanted]
        missing = [name for name, p in names.items() if p not in given]
        if wrong or missing:
            of = f"{missing[0]!r} is missing" if missing else f"{wrong[0]!r:.80} is one too many"
            raise ArgumentError(
                f"apply_gradients: the gradient of {of}: give one for each of {', '.join(names)}"
            )
        feeds = {p: check_feed(p, str(p.name), given[key]) for key, p in wanted.items()}
        feeds[loss] = np.zeros(())
        rate = engine.state.rate_at(learning_rate)
        refuse_while_reading("a training step")
        with engine.claim():
            specialization = engine.specialize("apply", [], feeds, True)
        launcher = launcher_of(
            specialization, None, feeds, engine.state, engine.last, training=True
        )
        launcher.step(feeds, self.seed, rate, True)

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
        kept, kept_training, launcher = self._run_launcher
        if launcher is not None and outputs is kept and training is kept_training:
            results = launcher.run(feed, self.seed, out, False)
            if results is not None:
                return results
        single, wanted = _asked_for(outputs, self)
        engine = self.engine
        feeds = engine.feeds_of(feed, wanted)
        # Batch statistics go to a shadow of the states, which a step would use as well.
        has_shadow = training and bool(engine.states)
        with engine.claim() if has_shadow else nullcontext():
            specialization = engine.specialize("run", wanted, feeds, training, any_rows=True)
            form = form_of(feed, engine.known, specialization.program)
            launcher = launcher_of(
                specialization,
                form,
                feeds,
                engine.state,
                engine.last,
                training=False,
                single=single,
            )
            if has_shadow:
                return launcher.run(feeds if form is None else feed, self.seed, out, True)
        if outputs is None or isinstance(outputs, Value):  # a list could be another one next time
            self._run_launcher = outputs, training, launcher
            if outputs is None and not training:
                engine.run_launcher = launcher
        return launcher.run(feeds if form is None else feed, self.seed, out, True)

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
        engine = self.engine
        feeds = engine.feeds_of(feed, [engine.require_cost()])
        with engine.claim():
            specialization = engine.specialize("gradients", [], feeds, training, any_rows=True)
            with engine.context(specialization) as context:
                context.bind(feeds)
                lib.pf_context_begin(context.pointer, self.seed, engine.state.step, 0.0)
                drive(context)
                loss = float(context.read(context.program.cost_id))
                gradients = {
                    p: engine.state.gradient_array(p).reshape(known_shape(p.spec)).copy()
                    for p in engine.state.trained or engine.trained_parameters()
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

        Parameters
        ----------
        feeds : dict of Placeholder (or its name) to array_like
            All of one length: a batch is made of the same rows of each.

        Raises
        ------
        ArgumentError, ShapeError, FeedError, DTypeError, BusyError

        See Also
        --------
        pyframe.engine.loop.Loop : for the other arguments.
        """
        return Loop(
            self.engine,
            self.engine.row_feeds(feeds),
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
        return inspection.value(self.engine, of)

    def gradient(self, of: Value) -> Array:
        """Return a copy of the loss's gradient by a node, from the last run that computed it.

        Raises
        ------
        GraphError
            If the loss does not depend on the node.
        ValueReusedError
            If it was not kept; compile with ``inspect=True``.
        """
        return inspection.gradient(self.engine, of)

    def contributions(self, node: Node) -> dict[Value, Array]:
        """Return what flows through a node to each of its inputs; a leaf has its whole gradient."""
        return inspection.contributions(self.engine, node)

    @property
    def segments(self) -> list[Segment]:
        """The segment table of the flat buffers that hold parameters and states."""
        return [segment for storage in self.engine.state.storages for segment in storage.segments]

    @property
    def step_count(self) -> int:
        """The number of completed training steps."""
        return self.engine.state.step

    @property
    def skipped_steps(self) -> int:
        """How many of these have updated nothing, by an optimizer with ``nonfinite="skip"``."""
        return self.engine.state.skipped

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
        pyframe.engine.profiler.Profile
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
        from pyframe.engine.profiler import profile  # what runs no profile need not load it

        return profile(
            self.engine,
            self.outputs,
            feed,
            mode,
            seed=self.seed,
            repeats=repeats,
            threads=threads,
            learning_rate=learning_rate,
        )

    # ---- snapshots ----

    def snapshot(self) -> Snapshot:
        """Return a copy of parameters, states and optimizer slots, and the step count.

        It is of one moment: an update that another thread is writing is waited for.
        """
        return self.engine.snapshot()

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
        self.engine.restore(snapshot, also)

    def prepare_restoring(
        self, snapshot: Snapshot, also: Iterable[object] = ()
    ) -> tuple[Iterator[object], Any]:
        """Return what goes back to a snapshot when exhausted, and the locks, to be released."""
        return self.engine.prepare_restoring(snapshot, also)

    def take_over(self, other: Plan) -> None:
        """Go on with what the optimizer of another plan over the same parameters has kept.

        What it keeps for a parameter is taken over for those that both plans train, and a number
        that it keeps for a run if the runs are the same. Of another optimizer nothing is: then the
        steps are counted from 0 again.
        """
        self.engine.take_over(other.engine)

    def named(self, snapshot: Snapshot) -> dict[str, Array]:
        """Return the arrays of a snapshot by name; see `pyframe.engine.state.views`."""
        return self.engine.named(snapshot)

    # ---- the lesson's way: one node at a time ----

    def forward_node(self, node: Node) -> None:
        """Compute one node from what its inputs hold; placeholders hold what was set on them."""
        self._stepper.forward(node)

    def backward_node(self, node: Node) -> None:
        """Compute the gradients that flow through one node."""
        self._stepper.backward(node)

    def held_feed(self) -> dict[Placeholder, Any]:
        """Return what has been set on the placeholders by hand."""
        return inspection.held_feed(self.engine)

    # ---- helpers ----

    def __repr__(self) -> str:
        return (
            f"<Plan of {len(self.graph.order)} nodes, {len(self.parameters)} parameters, "
            f"{len(self.engine.programs.all())} specialization(s)>"
        )

    def __str__(self) -> str:
        programs = self.engine.programs.all()
        program = programs[-1] if programs else None
        return plan_table(repr(self), self.graph, program, self.engine.state.tables.whole)


def _asked_for(outputs: Any, plan: Plan) -> tuple[bool, list[Value]]:
    """Return whether one output is asked for, not a list, and which; None: the plan's own."""
    if outputs is None:
        outputs = plan.outputs or plan.cost
        if isinstance(outputs, list) and len(outputs) == 1:
            outputs = outputs[0]
    single = isinstance(outputs, Value)
    wanted = _listed(outputs)
    for value in wanted:
        if not isinstance(value, Value):
            raise GraphError(f"{value!r} is no node; outputs are nodes of the compiled graph")
        if value.node not in plan.graph.names:
            raise GraphError(
                f"{value!r} is not part of this plan; "
                "name it in pyframe.compile(..., outputs=[...])"
            )
    return single, wanted


def _listed(nodes: Any) -> list[Any]:
    """Return one node, or several, as a list."""
    if isinstance(nodes, Value):
        return [nodes]
    try:
        return list(nodes)
    except TypeError as error:
        raise_if_signalled(error)
        raise GraphError(f"{nodes!r:.80} is no node, and no list of nodes") from error


def _check_optimizer(optimizer: Any) -> None:
    """Raise `ArgumentError` for what is no optimizer, but perhaps the name or the class of one."""
    if optimizer is not None and (
        isinstance(optimizer, type) or not hasattr(optimizer, "needs_gradients")
    ):
        raise ArgumentError(
            f"optimizer={optimizer!r} is no optimizer; pass one such as "
            "pyframe.optimizers.Adam(1e-3), or pyframe.optimizers.get('adam')"
        )


def _check_kinds(nodes: Sequence[Any], parameters: Sequence[Any]) -> None:
    """Raise `GraphError` for what is no node among nodes, or no parameter among parameters."""
    for value in nodes:
        if not isinstance(value, Value):
            raise GraphError(f"compile takes nodes and got {type(value).__name__}: {value!r}")
    for parameter in parameters:
        if not isinstance(parameter, Parameter):
            raise GraphError(f"parameters has {parameter!r:.80}, which is no Parameter")


@answering
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
        `pyframe.engine.fusion.FUSIONS`. With `inspect` or `detect_anomaly` none are.

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
    _check_optimizer(optimizer)
    outputs = _listed(outputs)
    if optimizer is not None and not isinstance(cost, Value):
        raise GraphError("an optimizer needs one loss; add the losses up, or pass the sum")
    loss, wanted = None, _listed(cost)
    if isinstance(cost, Value) and (optimizer is not None or cost.shape in ((), None)):
        loss = cost
    metrics = _listed(() if metrics is None else metrics)
    parameters = None if parameters is None else _listed(parameters)
    _check_kinds([*wanted, *outputs, *metrics], parameters or ())
    if loss is not None and optimizer is not None:
        if loss.dtype.kind != "f":
            raise DTypeError(
                f"the loss {loss.node.label()} is {loss.dtype.name}; only float32 and float64 can "
                "be differentiated"
            )
        check_learning_rate(optimizer)
    extra = [v for v in outputs if v not in wanted]
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
