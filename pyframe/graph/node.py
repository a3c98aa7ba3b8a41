"""Nodes: what a graph is made of.

A `Node` computes outputs from inputs. An edge of the graph is a `Value`: output number `index` of
a node; a node stands for its own output 0. Nodes hold no arrays: a plan does, and `node.value`
asks the plan that the node was last compiled into.
"""

from __future__ import annotations

import copy
import itertools
import math
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain, repeat
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from pyframe.errors import (
    ArgumentError,
    DTypeError,
    GraphError,
    ShapeError,
    check_flag,
)
from pyframe.graph import stepwise
from pyframe.graph.spec import (
    FLOAT32,
    FLOAT64,
    INT64,
    Array,
    Shape,
    Spec,
    check_shape,
    convert,
    describe,
    float_dtype,
    known_shape,
    value_dtype,
)
from pyframe.graph.storage import Storage
from pyframe.native.building import building
from pyframe.strict import Strict

# What the operators of `Value` build; the arithmetic ops enter themselves here.
OPERATORS: dict[str, Callable[..., Any]] = {}

_serial = itertools.count()


def next_serial() -> int:
    """Return a number above that of every node made so far, and below that of every later one."""
    return next(_serial)


_serial_lock = threading.Lock()


def _keep_below(serial: int) -> None:
    """Have `next_serial` go on above the number of a node that another process has made."""
    global _serial
    with _serial_lock:
        if next(_serial) <= serial:
            _serial = itertools.count(serial + 1)


class Value:
    """Output `index` of `node`; what the inputs of other nodes refer to.

    A `Node` is its own output 0; the others are an `Output`.

    Examples
    --------
    >>> import pyframe as pf
    >>> (pf.Placeholder("x", shape=(None, 3)) + 1.0).shape
    (None, 3)
    """

    __slots__ = ()
    # Leaves numpy.ones(3) * node to Node.__rmul__ instead of a loop over the elements.
    __array_ufunc__ = None
    # An array interface would only ever be a mistake: say so instead of making an object array.
    __array_priority__ = 1000

    @property
    def node(self) -> Node:
        """The node that computes this value."""
        raise NotImplementedError

    @property
    def index(self) -> int:
        """Which of the node's outputs this is."""
        raise NotImplementedError

    @property
    def spec(self) -> Spec:
        """Shape and dtype, as far as they are known before anything is fed."""
        return self.node.specs[self.index]

    @property
    def shape(self) -> Shape | None:
        """The shape; None for an extent, or for all of it, that only the feed decides."""
        return self.spec.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """The element type."""
        return self.spec.dtype

    @property
    def value(self) -> Array:
        """The array computed last; see `Plan.value`."""
        return self.node.last_plan().value(self)  # type: ignore[no-any-return]

    def __repr__(self) -> str:
        return f"<{self.node.label()}[{self.index}] {self.spec}>"

    def __array__(self, *args: Any, **kwargs: Any) -> Array:
        raise TypeError(
            f"{self!r} is a node of a graph, not an array; compile it and run the plan, "
            "or read its .value after a run"
        )

    def __bool__(self) -> bool:
        raise TypeError(f"{self!r} has no truth value before it is computed")

    def _binary(self, op: str, other: Any, *, swap: bool = False) -> Value:
        if not isinstance(other, Value):
            if not isinstance(other, int | float | np.ndarray | np.generic | list | tuple):
                return NotImplemented  # type: ignore[no-any-return]
            other = Constant(other, dtype=self.dtype)
        pair = (other, self) if swap else (self, other)
        result: Value = OPERATORS[op](*pair)
        return result

    def __add__(self, other: Any) -> Value:
        return self._binary("add", other)

    def __radd__(self, other: Any) -> Value:
        return self._binary("add", other, swap=True)

    def __sub__(self, other: Any) -> Value:
        return self._binary("sub", other)

    def __rsub__(self, other: Any) -> Value:
        return self._binary("sub", other, swap=True)

    def __mul__(self, other: Any) -> Value:
        return self._binary("mul", other)

    def __rmul__(self, other: Any) -> Value:
        return self._binary("mul", other, swap=True)

    def __truediv__(self, other: Any) -> Value:
        return self._binary("div", other)

    def __rtruediv__(self, other: Any) -> Value:
        return self._binary("div", other, swap=True)

    def __matmul__(self, other: Any) -> Value:
        return self._binary("matmul", other)

    def __rmatmul__(self, other: Any) -> Value:
        return self._binary("matmul", other, swap=True)

    def __neg__(self) -> Value:
        return OPERATORS["neg"](self)  # type: ignore[no-any-return]

    def __abs__(self) -> Value:
        return OPERATORS["abs"](self)  # type: ignore[no-any-return]

    def __pow__(self, exponent: Any) -> Value:
        return self._binary("pow", exponent)

    def __rpow__(self, base: Any) -> Value:
        return self._binary("pow", base, swap=True)

    # Elements are compared. `==` and `!=` ask whether two values are one: nodes are keys of feeds.

    def __lt__(self, other: Any) -> Value:
        return self._binary("lt", other)

    def __le__(self, other: Any) -> Value:
        return self._binary("le", other)

    def __gt__(self, other: Any) -> Value:
        return self._binary("gt", other)

    def __ge__(self, other: Any) -> Value:
        return self._binary("ge", other)

    def __getitem__(self, index: Any) -> Value:
        """Return a part of the array, indexed as in NumPy; see `pyframe.Slice`.

        A single whole number is not taken: of a node it picks an output.
        """
        if isinstance(index, int | np.integer):
            raise TypeError(
                f"{self!r}[{index}]: for an entry along the first axis write [{index}, ...]"
            )
        return OPERATORS["item"](self, index)  # type: ignore[no-any-return]

    __iter__: Any = None  # the parts of an array are not known before it is computed


class Output(Value):
    """Output `index` of a node, above 0."""

    __slots__ = ("index", "node")
    node: Node
    index: int

    def __init__(self, node: Node, index: int) -> None:
        self.node, self.index = node, index


class Node(Value):
    """A computation: the base of every op, leaf and node written in Python.

    A node in Python is a subclass with ``forward(self, ctx, *inputs)``, which returns an array (or
    a tuple of them, for `output_count` above 1), and ``backward(self, ctx, *grads)``, which
    returns one gradient for each input, or None. Arrays may be kept on ``ctx`` from one to the
    other; ``ctx.inputs`` and ``ctx.outputs`` are there in backward too. The lesson's way works as
    well: ``Node.__init__(self, [x])``, and ``forward(self)`` and ``backward(self)`` that set
    ``self.value`` and ``self.gradients[x]``.

    Parameters
    ----------
    *inputs : Value or array_like or None
        Arrays and numbers become constants. None stands for an optional input left out.
    name : str, optional
        What messages, pictures and tables call it. Made unique within a graph.

    Examples
    --------
    >>> import numpy as np, pyframe as pf
    >>> class Cube(pf.Node):
    ...     def forward(self, ctx, x):
    ...         return x**3
    ...     def backward(self, ctx, dy):
    ...         (x,) = ctx.inputs
    ...         return 3 * x**2 * dy
    >>> x = pf.Placeholder("x", shape=(None,))
    >>> pf.compile(Cube(x)).run({x: [1.0, 2.0]})
    array([1., 8.], dtype=float32)
    """

    __slots__ = ("__dict__", "__weakref__", "_plan", "inputs", "name", "serial", "specs", "states")

    op: ClassVar[str] = ""  # the name in the registry; "" for what is not registered
    output_count: ClassVar[int] = 1
    # What a constructor keeps that belongs to this one node: there is no other like it.
    keeps: ClassVar[tuple[str, ...]] = ()
    sole_writer: ClassVar[bool] = False  # of its states: no other such node of a graph has them
    index = 0

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        stepwise.adapt(cls)

    @property
    def node(self) -> Node:
        """The node itself, which it does not keep: it would wait for the cyclic collector."""
        return self

    def __init__(
        self,
        *inputs: Any,
        name: str | None = None,
        states: Sequence[State] = (),
    ) -> None:
        self.serial = next_serial()
        self.name = name
        self._plan: Callable[[], Any] | None = None
        given = inputs[0] if len(inputs) == 1 and self.is_python else None
        if isinstance(given, list | tuple) and any(isinstance(i, Value) for i in given):
            inputs = tuple(given)  # as the lesson writes it; numbers are a constant
        for i in inputs:
            if i is not None and not isinstance(i, Value):
                inputs = _with_constants(inputs)
                break
        self.inputs: tuple[Value | None, ...] = inputs
        self.states: tuple[State, ...] = tuple(states)
        self.specs: tuple[Spec, ...] = self.check(
            *[None if i is None else i.node.specs[i.index] for i in inputs]
        )

    def __getstate__(self) -> Any:
        """Return what a copy is made of: all but the plan, which belongs to this one."""
        state: Any = object.__getstate__(self)
        return state[0], {**state[1], "_plan": None}

    def __setstate__(self, state: Any) -> None:
        own, slots = state
        self.__dict__.update(own or {})
        for name, value in slots.items():
            setattr(self, name, value)
        _keep_below(self.serial)

    def __deepcopy__(self, memo: dict[int, Any]) -> Node:
        """Copy what it depends on first, node by node, so that no depth is too much for it."""
        found: dict[Node, None] = {self: None}
        stack: list[Node] = [self]
        while stack:
            node = stack.pop()
            above = [*(i.node for i in node.inputs if i is not None), *node.states]
            new = [n for n in above if n not in found and id(n) not in memo]
            found.update(dict.fromkeys(new))
            stack += new
        for node in sorted(found, key=lambda n: n.serial):  # inputs are made before what reads them
            if id(node) not in memo:
                twin = memo[id(node)] = object.__new__(type(node))
                twin.__setstate__(copy.deepcopy(node.__getstate__(), memo))
        twin = memo[id(self)]
        assert isinstance(twin, Node)
        return twin

    def __copy__(self) -> Node:
        """Return another node like this one, on the same inputs."""
        twin: Node = object.__new__(type(self))
        twin.__setstate__(self.__getstate__())
        twin.serial = next_serial()
        return twin

    def on(self, *inputs: Value | None) -> Node:
        """Return another node like this one, on other inputs, and with the same states."""
        if self.keeps:
            raise GraphError(
                f"{self.label()} ({type(self).__name__}) belongs to the gradient of another node "
                "and cannot be had without it; build the gradient anew, on the other inputs"
            )
        twin = copy.copy(self)
        twin.inputs = inputs
        twin.specs = twin.check(*[None if i is None else i.spec for i in inputs])
        return twin

    def belong_to(self, plan: Callable[[], Any]) -> None:
        """Have `value` and `gradients` ask a plan, given as what `plan_reference` returns."""
        self._plan = plan

    def check(self, *specs: Spec | None) -> tuple[Spec, ...]:
        """Return the specs of the outputs for those of the inputs, or raise what is wrong.

        Called when the node is built, with unknown extents, and again for every new feed.
        """
        result = self.infer(*specs)
        results = (result,) if isinstance(result, Spec) else tuple(result)
        for spec in results:
            if spec.dtype not in (FLOAT32, FLOAT64, INT64):
                raise DTypeError(
                    f"{self.label()}: infer() says {np.dtype(spec.dtype).name}; a node gives "
                    "float32, float64 or int64"
                )
        return results

    def infer(self, *specs: Spec | None) -> Spec | Sequence[Spec]:
        """Return the spec of each output. Default, for nodes in Python: that of the first input."""
        for spec in specs:
            if spec is not None:
                return (spec,) * self.output_count
        raise GraphError(f"{self.label()} has no input to take its shape from; override infer()")

    def label(self) -> str:
        """Return the name, or the kind when there is none."""
        return self.name or self.op or type(self).__name__

    @property
    def is_python(self) -> bool:
        """Whether this node is computed by Python code."""
        return type(self).forward is not Node.forward

    def __getitem__(self, index: Any) -> Value:
        """Return output number `index`, or for any other index that part of the array."""
        if not isinstance(index, int | np.integer) or isinstance(index, bool):
            return super().__getitem__(index)
        if not 0 <= index < self.output_count:
            raise GraphError(f"{self.label()} has {self.output_count} output(s), asked for {index}")
        return self if index == 0 else Output(self, int(index))

    def __iter__(self) -> Iterator[Value]:
        if self.output_count == 1:
            raise TypeError(f"{self.label()} has one output; there is nothing to unpack")
        return (self[i] for i in range(self.output_count))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.label()!r} {', '.join(map(str, self.specs))}>"

    def last_plan(self) -> Any:
        """Return the plan that it was last compiled into.

        Raises
        ------
        GraphError
            If there is none, or nobody has kept it.
        """
        plan = self._plan() if self._plan is not None else None
        if plan is None:
            raise GraphError(
                f"{self.label()} has no value yet: compile a graph that holds it, keep the plan, "
                "and run it first"
            )
        return plan

    @property
    def gradients(self) -> Mapping[Value, Array]:
        """What flows back through this node to each of its inputs, as the lesson has it.

        For a placeholder or parameter: the whole gradient, under itself.
        """
        return self.last_plan().contributions(self)  # type: ignore[no-any-return]

    # The lesson's step-by-step methods; a node in Python overrides both with the contract above.

    def forward(self, *args: Any) -> Any:
        """Compute this node alone, from the values that its inputs have now."""
        self._require_node("forward")
        if args:  # a plan calls it so
            raise self.lacks("forward(self, ctx, *inputs)")
        self.last_plan().forward_node(self)

    def backward(self, *args: Any) -> Any:
        """Compute the gradients that flow through this node alone."""
        self._require_node("backward")
        if args:
            raise self.lacks("backward(self, ctx, *grads)")
        self.last_plan().backward_node(self)

    def _require_node(self, method: str) -> None:
        """Raise `GraphError` in a run of the lesson's forward or backward, by their super()."""
        if stepwise.is_seen(self):
            raise GraphError(
                f"{self.label()}: super().{method}() gets to pyframe.Node, which computes nothing: "
                "leave the call out"
            )

    def lacks(self, method: str) -> GraphError:
        """Return the error for a method that a node written in Python has to define."""
        return GraphError(
            f"{self.label()} ({type(self).__name__}) has no {method.partition('(')[0]}: a node "
            f"written in Python defines {method}; one that a C kernel computes is a pyframe.Op"
        )


def _with_constants(inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the inputs of a node with constants, of the dtype of the others, for arrays."""
    dtype = next((i.dtype for i in inputs if isinstance(i, Value) and i.dtype.kind == "f"), None)
    return tuple(
        i if i is None or isinstance(i, Value) else Constant(i, dtype=dtype) for i in inputs
    )


_set = object.__setattr__  # past `Strict`, which would take longer than all the rest of a leaf


class Leaf(Node):
    """A node without inputs."""

    __slots__ = ("_spec",)
    _spec: Spec

    def __init__(self, spec: Spec, name: str | None = None) -> None:
        _set(self, "serial", next_serial())
        _set(self, "name", name)
        _set(self, "_plan", None)
        _set(self, "inputs", ())
        _set(self, "states", ())
        _set(self, "_spec", spec)
        _set(self, "specs", (spec,))

    def infer(self, *specs: Spec | None) -> Spec:
        return self._spec


LEAF_ATTRIBUTES = {
    "name": "",
    "serial": "",
    "inputs": "make a new one",
    "specs": "make a new one",
    "states": "make a new one",
}


class Placeholder(Strict, Leaf):
    """An input of the graph, given at each run.

    Parameters
    ----------
    name : str, optional
    shape : tuple of int or None, optional
        None for an extent that may differ from feed to feed (the batch). Without a shape
        anything goes, a plain number too.
    dtype : {"float32", "float64", "int64"}
        Fed arrays are converted to it; int64 (labels) refuses floats.

    Examples
    --------
    >>> import pyframe as pf
    >>> pf.Placeholder("x", shape=(None, 13))
    <Placeholder 'x' float32(?, 13)>
    """

    __slots__ = ("_fed",)
    _fed: Any
    _attributes = LEAF_ATTRIBUTES
    op = "placeholder"

    def __init__(
        self,
        name: str | None = None,
        shape: Any = None,
        dtype: npt.DTypeLike = "float32",
    ) -> None:
        checked = None if shape is None else check_shape(shape, f"placeholder {name or ''}")
        super().__init__(Spec(checked, value_dtype(dtype)), name)
        _set(self, "_fed", None)

    @property
    def held(self) -> Any:
        """What has been set by hand; None: nothing."""
        return self._fed

    @property
    def value(self) -> Any:
        """What was fed last, or set by hand for the lesson's way of running."""
        if self._fed is not None:
            return self._fed
        return super().value

    @value.setter
    def value(self, value: Any) -> None:
        self._fed = value

    def forward(self, value: Any = None) -> None:
        """Set the value, as the lesson does."""
        if value is not None:
            self._fed = value


class Constant(Leaf):
    """An array that never changes; numbers in an expression become one.

    Parameters
    ----------
    value : array_like
    dtype : optional
        float32 unless given (int64 for integer arrays of labels must be asked for).

    Examples
    --------
    >>> import pyframe as pf
    >>> pf.compile(pf.Constant([1.0, 2.0]) + 1.0).run({})
    array([2., 3.], dtype=float32)
    """

    __slots__ = ("array",)
    op = "constant"

    def __init__(
        self, value: Any, *, dtype: npt.DTypeLike | None = None, name: str | None = None
    ) -> None:
        wanted = FLOAT32 if dtype is None else value_dtype(dtype)
        array = np.array(convert(value, wanted, f"constant {name or ''}".strip()))
        array.flags.writeable = False
        self.array = array
        super().__init__(Spec(array.shape, wanted), name)

    def __setstate__(self, state: Any) -> None:
        super().__setstate__(state)
        self.array.flags.writeable = False

    @property
    def value(self) -> Array:
        """The array itself, read-only."""
        return self.array


class Initial(Protocol):
    """First values that have not been drawn yet; see `pyframe.initializers`."""

    @property
    def shape(self) -> tuple[int, ...] | None:
        """The shape of the values; None: not known yet."""

    def materialize(self, name: str) -> Array:
        """Return the values for the parameter of a name."""


class Place(NamedTuple):
    """Where a parameter's numbers are: in a flat buffer, from an offset on, counted in elements."""

    storage: Storage
    offset: int


class Parameter(Strict, Leaf):
    """An array that training changes.

    It lives in a flat buffer that all parameters of its model share; `value` is a read-only view
    of it, and assigning to `value` copies into it.

    Parameters
    ----------
    value : array_like or Initial
        An array, a number, or what an initializer returns: then the numbers are drawn when they
        are first needed, from (seed, name), so that the order of building is of no matter. The
        seed is that of now (`pyframe.set_seed`).
    name : str, optional
    dtype : {"float32", "float64"}, default "float32"
    trainable : bool, default True
        False keeps it as it is; it is saved all the same. May be set later: a `Trainer` heeds it
        from its next fit on, and a plan that trains refuses to go on until it is compiled anew.
    group : str, default "default"
        Optimizers can treat groups differently. May be set later, as `trainable` may.
    regularizer : callable, optional
        From the parameter to the node of a number, which a `Trainer` adds to its loss; see
        `pyframe.regularizers`. May be set later, as `trainable` may.
    constraint : callable, optional
        From the parameter to a node of its shape, its value after each update; see
        `pyframe.constraints`. May be set later, as `trainable` may.

    Examples
    --------
    >>> import numpy as np, pyframe as pf
    >>> w = pf.Parameter(np.zeros((13, 64)), name="w")
    >>> w.value.shape
    (13, 64)
    """

    __slots__ = ("_constraint", "_group", "_initial", "_place", "_regularizer", "_trainable")
    _constraint: Callable[[Value], Value] | None
    _regularizer: Callable[[Value], Value] | None
    _group: str
    _initial: Initial | Array
    _place: Place | None
    _trainable: bool
    _attributes = LEAF_ATTRIBUTES
    op = "parameter"

    def __init__(
        self,
        value: Any,
        name: str | None = None,
        *,
        dtype: npt.DTypeLike = "float32",
        trainable: bool = True,
        group: str = "default",
        regularizer: Callable[[Value], Value] | None = None,
        constraint: Callable[[Value], Value] | None = None,
    ) -> None:
        wanted = float_dtype(dtype)
        _set(self, "_regularizer", _function_or_none("regularizer", regularizer))
        _set(self, "_constraint", _function_or_none("constraint", constraint))
        _set(self, "_trainable", check_flag("trainable", trainable))
        _set(self, "_group", group)
        _set(self, "_place", None)
        if hasattr(value, "materialize"):
            # With the seed of now, which may be another one when the numbers are drawn.
            with_seed = getattr(value, "with_seed", None)
            _set(self, "_initial", value if with_seed is None else with_seed())
            shape = check_shape(value.shape, f"parameter {name or ''}")
        else:
            array = np.array(convert(value, wanted, f"parameter {name or ''}".strip()))
            _set(self, "_initial", array)
            shape = array.shape
        super().__init__(Spec(shape, wanted), name)

    def __getstate__(self) -> Any:
        with building:  # another thread may be giving it its place
            return super().__getstate__()

    def __copy__(self) -> Parameter:
        """Return a parameter of its own: two would train the same numbers otherwise."""
        return copy.deepcopy(self)

    @property
    def trainable(self) -> bool:
        """Whether training changes it."""
        return self._trainable

    @trainable.setter
    def trainable(self, trainable: bool) -> None:
        trainable = check_flag("trainable", trainable)
        if trainable is self._trainable:
            return
        if isinstance(self, State):
            raise ArgumentError(f"{self.label()} is a state: it is kept, and never trained")
        self._trainable = trainable
        self._tell(trainable=trainable)

    @property
    def group(self) -> str:
        """The group that optimizers find it in."""
        return self._group

    @group.setter
    def group(self, group: str) -> None:
        self._group = group
        self._tell(group=group)

    @property
    def regularizer(self) -> Callable[[Value], Value] | None:
        """The penalty that a `Trainer` adds to its loss."""
        return self._regularizer

    @regularizer.setter
    def regularizer(self, regularizer: Callable[[Value], Value] | None) -> None:
        self._regularizer = _function_or_none("regularizer", regularizer)
        self._tell()

    @property
    def constraint(self) -> Callable[[Value], Value] | None:
        """What every update of it ends with."""
        return self._constraint

    @constraint.setter
    def constraint(self, constraint: Callable[[Value], Value] | None) -> None:
        self._constraint = _function_or_none("constraint", constraint)
        self._tell()

    def _tell(self, **changes: Any) -> None:
        """Have the table of segments, and the plans, know of a change."""
        if self._place is None:
            return
        storage, offset = self._place
        storage.note(offset, self.size, changes)
        for reference in storage.on_freeze:
            forget = reference()
            if forget is not None:
                forget()

    @property
    def size(self) -> int:
        """The number of elements."""
        return math.prod(known_shape(self.spec))

    @property
    def place(self) -> Place:
        """Where its numbers are, once a plan has given it a place.

        Raises
        ------
        GraphError
            If none has.
        """
        if self._place is None:
            raise GraphError(f"{self.label()} has no place yet: compile a graph that holds it")
        return self._place

    @property
    def is_placed(self) -> bool:
        """Whether a plan has given it its place in a flat buffer."""
        return self._place is not None

    def initial_array(self, name: str = "") -> Array:
        """Return the first value; drawn once, then kept until it is placed.

        It is drawn under the name that the graph gives the parameter: two of one name get two.
        Called with `building` held, as all that touches a parameter that has no place yet.
        """
        if not isinstance(self._initial, np.ndarray):
            drawn = self._initial.materialize(name or self.name or f"{self.op}_{self.serial}")
            self._initial = np.array(convert(drawn, self.dtype, self.label()))
        return self._initial

    @property
    def value(self) -> Array:
        """The current value, a read-only view."""
        if self._place is None:
            with building:
                if self._place is None:  # no other thread has placed it meanwhile
                    view = self.initial_array().view()
                    view.flags.writeable = False
                    return view
        storage, offset = self._place
        view = storage.view(offset, known_shape(self.spec))
        view.flags.writeable = False
        return view

    @value.setter
    def value(self, value: Any) -> None:
        array = convert(value, self.dtype, self.label())
        if array.shape != self.shape:
            raise ShapeError(
                f"parameter {self.label()} has shape {describe(self.shape)} and was given "
                f"{describe(array.shape)}; a parameter keeps its shape"
            )
        if self._place is None:
            with building:
                if self._place is None:
                    self._initial = array.copy()
                    return
        storage, offset = self._place
        storage.write(offset, array)


def _function_or_none(what: str, given: Any) -> Any:
    if given is not None and not callable(given):
        kind = f"pyframe.{what}s"
        raise ArgumentError(
            f"{what}={given!r:.80} of a parameter is no function; pass one from node to node, such "
            f"as those of {kind}: {kind}.get({given!r:.80}) finds it by its name"
        )
    return given


def settle(parameters: Sequence[Parameter], places: Sequence[Place]) -> None:
    """Give parameters their places, in which their first values are already.

    In one call without Python code in it, so no exception from a signal handler can tear it apart.
    """
    nothing = np.empty(0)  # the numbers live in the buffers now
    set_place = vars(Parameter)["_place"].__set__
    set_initial = vars(Parameter)["_initial"].__set__
    deque(
        chain(map(set_place, parameters, places), map(set_initial, parameters, repeat(nothing))),
        maxlen=0,
    )


class State(Parameter):
    """An array that a node keeps from step to step, such as a running mean: saved, not trained.

    Parameters
    ----------
    value : array_like or Initial
    name : str, optional
    dtype : {"float32", "float64"}, default "float32"
    frozen : bool, default False
        True keeps it as it is: an op whose states are all frozen computes in training what it
        computes otherwise. May be set later; it counts as the `trainable` of a parameter does, and
        a layer sets it together with that.

    Examples
    --------
    >>> import pyframe as pf
    >>> pf.State([0.0], "mean").trainable
    False
    """

    __slots__ = ("_frozen",)
    _frozen: bool
    _attributes = LEAF_ATTRIBUTES
    op = "state"

    def __init__(
        self,
        value: Any,
        name: str | None = None,
        *,
        dtype: npt.DTypeLike = "float32",
        frozen: bool = False,
    ):
        _set(self, "_frozen", check_flag("frozen", frozen))
        super().__init__(value, name, dtype=dtype, trainable=False)

    @property
    def frozen(self) -> bool:
        """Whether training leaves it as it is."""
        return self._frozen

    @frozen.setter
    def frozen(self, frozen: bool) -> None:
        frozen = check_flag("frozen", frozen)
        if frozen is not self._frozen:
            self._frozen = frozen
            self._tell()


def plan_reference(plan: Any) -> Callable[[], Any]:
    """Return what nodes keep of the plan that they were last compiled into."""
    return weakref.ref(plan)
