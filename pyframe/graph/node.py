"""Nodes: what a graph is made of.

A `Node` computes outputs from inputs. An edge of the graph is a `Value`: output number `index` of
a node; a node stands for its own output 0. Nodes hold no arrays: a plan does, and `node.value`
asks the plan that the node was last compiled into.
"""

from __future__ import annotations

import copy
import itertools
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from pyframe.errors import DTypeError, GraphError
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
    value_dtype,
)
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

        A single whole number is refused, since on a node it picks an output.
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
    # What a constructor keeps that belongs to this node alone: `on` makes no other like it.
    keeps: ClassVar[tuple[str, ...]] = ()
    sole_writer: ClassVar[bool] = False  # of its states: no other such node of a graph has them
    index = 0

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        stepwise.adapt(cls)

    @property
    def node(self) -> Node:
        """The node itself; with a reference to itself it would wait for the cyclic collector."""
        return self

    def __init__(
        self,
        *inputs: Any,
        name: str | None = None,
        states: Sequence[Leaf] = (),
    ) -> None:
        self.serial = next_serial()
        self.name = name
        self._plan: Callable[[], Any] | None = None
        for i in inputs:
            if i is not None and not isinstance(i, Value):
                inputs = self._as_values(inputs)
                break
        self.inputs: tuple[Value | None, ...] = inputs
        self.states: tuple[Leaf, ...] = tuple(states)
        self.specs: tuple[Spec, ...] = self.check(
            *[None if i is None else i.node.specs[i.index] for i in inputs]
        )

    def _as_values(self, inputs: tuple[Any, ...]) -> tuple[Value | None, ...]:
        """Return the inputs with constants, of the dtype of the others, for arrays."""
        given = inputs[0] if len(inputs) == 1 and self.is_python else None
        if isinstance(given, list | tuple) and any(isinstance(i, Value) for i in given):
            inputs = tuple(given)  # as the lesson writes it; numbers are a constant
        dtype = next(
            (i.dtype for i in inputs if isinstance(i, Value) and i.dtype.kind == "f"), None
        )
        return tuple(
            i if i is None or isinstance(i, Value) else Constant(i, dtype=dtype) for i in inputs
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
        if type(index) is not int and (
            not isinstance(index, int | np.integer) or isinstance(index, bool)
        ):
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


# Past `Strict`, which would take longer than all the rest of making a leaf.
set_slot = object.__setattr__


class Leaf(Node):
    """A node without inputs."""

    __slots__ = ("_spec",)
    _spec: Spec

    def __init__(self, spec: Spec, name: str | None = None) -> None:
        set_slot(self, "serial", next_serial())
        set_slot(self, "name", name)
        set_slot(self, "_plan", None)
        set_slot(self, "inputs", ())
        set_slot(self, "states", ())
        set_slot(self, "_spec", spec)
        set_slot(self, "specs", (spec,))

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
        set_slot(self, "_fed", None)

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


def plan_reference(plan: Any) -> Callable[[], Any]:
    """Return what nodes keep of the plan that they were last compiled into."""
    return weakref.ref(plan)
