"""Ops: nodes that a C kernel computes, and what an op class declares.

An op class holds everything about an op on the Python side: its shape rule, its kernel and
attributes, its gradient, a float64 NumPy reference and test cases. Everything else (conformance
tests, serialization, the tables of a plan) is derived from these.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, NoReturn

import numpy as np

from pyframe.attributes import Block, Rule
from pyframe.errors import (
    ArgumentError,
    DTypeError,
    GraphError,
    PyframeError,
    ShapeError,
    raise_if_signalled,
)
from pyframe.graph.node import Leaf, Node, Value
from pyframe.graph.parameter import State
from pyframe.graph.spec import FLOAT64, INT64, Array, Shape, Spec, describe
from pyframe.native.core import MAX_NDIM


class Case(NamedTuple):
    """One call of an op for a test: arrays of its inputs (None: absent), and its attributes.

    Examples
    --------
    >>> import pyframe as pf
    >>> pf.Case(([1.0],)).attributes
    {}
    """

    inputs: tuple[Array | None, ...]
    attributes: dict[str, Any] = {}
    states: tuple[Array, ...] = ()


class Rows(NamedTuple):
    """How an op treats rows, the entries along the first axis; see `Op.rows`.

    Attributes
    ----------
    inputs : tuple of bool
        Which inputs are read row by row; of the others every row needs all.
    outputs : tuple of bool
        Which outputs have a row for each row; the others are sums over the rows.

    Examples
    --------
    >>> import pyframe as pf
    >>> pf.Rows((True, False), (True,)).inputs
    (True, False)
    """

    inputs: tuple[bool, ...]
    outputs: tuple[bool, ...]


class Op(Node):
    """A node computed by the kernels ``pf_<kernel>_f32`` and ``pf_<kernel>_f64``.

    What a subclass declares:

    - `op`: its name in the registry; `kernel`: that of its C kernel, the same unless given.
    - `attributes`: fields of the block that the kernel reads, as ``{"slope": "f8"}``; in C a
      struct with the same fields in the same order. They are keyword arguments of the class and
      are kept in ``self.attrs``.
    - `rules`: for each attribute what it may be, as ``{"slope": number(at_least=0)}``; see
      `pyframe.attributes`. They apply to the constructor and to model files, whereas a check in the
      constructor is skipped for files. An attribute without a rule that goes to the kernel
      unchanged must fit its field. Conditions that involve shapes belong in the shape rule.
    - `defaults`: the values of attributes that may be left out.
    - `computed`: fields of the block behind the attributes that are none of them, as
      ``{"elements": "i8"}``: `lower_attributes` finds them from the shapes of a feed.
    - `integer_inputs`: indices of inputs that are int64; all others share one float dtype.
    - `index_into`: (input, axis) whose extent the integers must stay below; for an error's message.
      Default: they are labels, and the classes are the last axis of the first float input.
    - `optional_inputs`: indices of inputs that may be None.
    - `output_count`: how many outputs there are, 1 unless given; `output_dtype`: theirs, that of
      the float inputs unless given.
    - `shape_only`: indices of inputs of which only the shape is used: their memory is not kept,
      and they may have any dtype.
    - `constant_inputs`: indices of float inputs that are data, as a loss's sample weights are: no
      gradient flows to them.
    - `infer_shape(*shapes)`: the shape of the output (a tuple of shapes when there are several).
      Extents may be None (unknown); `self.bad_shapes("why")` raises with node and shapes.
    - `states`: a keyword of the class, for an op whose kernel reads and writes `State` arrays;
      `sole_writer`: a graph in which two such nodes have one state is refused.
    - `reads_training`: the kernel does something else while training, unless the node `is_still`:
      all of its states are frozen, or those of the node that a gradient belongs to.
    - `uses_random`: the kernel draws random numbers; `random_source` is the node whose stream it
      draws from, the node itself unless a gradient has to repeat the numbers of another node.
    - `differentiable`: False for an op that no gradient goes through, as most gradients are.
    - `differentiable_outputs`: the outputs a loss may depend on, when it is not all of them.
    - `gradient(*grads)`: one `Value` or None for each input, given the gradients of the outputs
      (None for an output that the loss does not depend on); it builds nodes, it computes nothing.
    - `reference(*inputs, **attrs)`: the result in NumPy, in float64; slow and obvious. With
      `reads_training` it also takes ``training``; with states `reference_states` is what counts,
      and `magnitude` takes ``states`` too; with `uses_random` it says what happens outside of
      training, when nothing is drawn.
    - `magnitude(*inputs, **attrs)`: how far a result may be from the reference.
    - `exact_on_integers`: the op does nothing but sums and products, so that on small whole numbers
      the kernel's result is that of the reference to the bit.
    - `cases()` and `sample(draw)`: test cases, fixed and random.
    - `scratch_bytes(specs)`: the memory that a call of the kernel needs for itself, and
      `scratch_pieces()` how many times that, if several threads can use it.
    - `flops(specs, outputs, wanted)`: its operations, for the profiler and for tests that must not
      take long.
    - `is_elementwise(specs)`, `absorb(index, consumer, specs)`, `alias(specs, training)`: what the
      planner may do with it: run it piece by piece, join it with what reads it, leave it out.
    - `rows(specs)`: which operands go by rows, so that the kernel may be called on some of the rows
      at a time, and which outputs are then sums over them.
    - `by_rows(gradients)`: how to compute those rows of the gradient of a table that are not 0.
    - `lower_attributes(specs)`: what the kernel reads as attributes, if it depends on the shapes.
    - `keeps`: names of what its constructor puts on the node besides; files do not hold it, and a
      node that keeps something cannot be saved.
    - `rectifies`: whether an activation cuts off about half of its input, so that the weights in
      front of it are drawn with He's variance, which keeps the size of the signal.
    - `listed_in`: "losses" or "metrics" for a built-in one that is picked by name among those, too;
      `aliases` are its other names there.

    Examples
    --------
    >>> import pyframe as pf
    >>> pf.Relu.op, pf.Relu.kernel, pf.Relu.differentiable
    ('relu', 'relu', True)
    """

    rectifies: ClassVar[bool] = False
    listed_in: ClassVar[str] = ""
    aliases: ClassVar[tuple[str, ...]] = ()
    kernel: ClassVar[str] = ""
    attributes: ClassVar[dict[str, str]] = {}
    rules: ClassVar[Mapping[str, Rule]] = {}
    defaults: ClassVar[Mapping[str, Any]] = {}
    computed: ClassVar[Mapping[str, str]] = {}
    integer_inputs: ClassVar[tuple[int, ...]] = ()
    index_into: ClassVar[tuple[int, int] | None] = None
    optional_inputs: ClassVar[tuple[int, ...]] = ()
    shape_only: ClassVar[tuple[int, ...]] = ()
    constant_inputs: ClassVar[tuple[int, ...]] = ()
    output_dtype: ClassVar[np.dtype[Any] | None] = None  # None: that of the float inputs
    differentiable: ClassVar[bool] = True
    reads_training: ClassVar[bool] = False
    uses_random: ClassVar[bool] = False
    # What a constructor keeps besides inputs and attributes: files do not hold it.
    keeps: ClassVar[tuple[str, ...]] = ()
    differentiable_outputs: ClassVar[tuple[int, ...] | None] = None  # None: all
    exact_on_integers: ClassVar[bool] = False  # sums and products only: no rounding there
    attribute_dtype: ClassVar[np.dtype[Any]] = np.dtype([])
    _block: ClassVar[Block] = Block({})
    _rules: ClassVar[dict[str, Rule]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "kernel" not in cls.__dict__ and "op" in cls.__dict__:
            cls.kernel = cls.op
        if "attributes" in cls.__dict__:
            cls._block = Block({**cls.attributes, **cls.computed})
            cls.attribute_dtype = cls._block.dtype
        as_they_are = cls._block.rules if cls.lower_attributes is Op.lower_attributes else {}
        cls._rules = {**as_they_are, **cls.rules}

    def __init__(
        self,
        *inputs: Any,
        name: str | None = None,
        states: Sequence[Leaf] = (),
        **attributes: Any,
    ) -> None:
        self.attrs: dict[str, Any] = attributes
        if attributes or self.attributes:
            self._check_attributes(name)
        super().__init__(*inputs, name=name, states=states)

    def _check_attributes(self, name: str | None) -> None:
        """Apply the rules to `attrs`, or raise `ArgumentError`."""
        attrs = self.attrs
        if not attrs.keys() <= self.attributes.keys():
            unknown = sorted(attrs.keys() - self.attributes.keys())
            raise ArgumentError(
                f"{name or self.op} ({type(self).__name__}) does not know {unknown}; "
                f"its attributes are {sorted(self.attributes)}"
            )
        for key, value in self.defaults.items():
            attrs.setdefault(key, value)
        try:
            for key, rule in self._rules.items():
                if key not in attrs:
                    raise ArgumentError(f"it needs {key}=, one of its attributes")
                attrs[key] = rule(attrs[key], key)
        except ArgumentError as error:
            label = f"{name or self.op} ({type(self).__name__})"
            raise ArgumentError(f"{label}: {error}") from error

    def check(self, *specs: Spec | None) -> tuple[Spec, ...]:
        dtype = self._check_dtypes(specs)
        out = self.output_dtype or dtype
        shapes: list[Shape | None] = []
        for spec in specs:
            if spec is None:
                shapes.append(None)
            elif spec.shape is None:
                return (Spec(None, out),) * self.output_count
            else:
                shapes.append(spec.shape)
        self._shapes_for_message = shapes
        for shape in shapes:
            if shape is not None and len(shape) > MAX_NDIM:
                _refuse_rank(self, shape)
        try:
            result = self.infer_shape(*shapes)
        except PyframeError:
            raise
        except (TypeError, ValueError, LookupError, ArithmeticError) as error:
            raise_if_signalled(error)
            given = ", ".join("None" if s is None else describe(s) for s in shapes)
            counts = _usual_counts(type(self))
            if counts and not counts[0] <= len(specs) <= counts[-1]:
                takes = " to ".join(map(str, dict.fromkeys((counts[0], counts[-1]))))
                raise GraphError(
                    f"{self.label()} ({type(self).__name__}) takes {takes} input(s) and was given "
                    f"{len(specs)}: {given or 'nothing'}"
                ) from error
            raise GraphError(
                f"{self.label()} ({type(self).__name__}) does not take {len(specs)} input(s) of "
                f"{given}, with the attributes {self.attrs!r:.200}: its shape rule says {error!r}"
            ) from error
        results = (result,) if self.output_count == 1 else result
        first = specs[0] if specs else None
        specs_out = []
        for shape in results:
            if first is not None and shape is first.shape and out is first.dtype:
                specs_out.append(first)  # the usual case: most ops keep the shape
                continue
            if len(shape) > MAX_NDIM:
                _refuse_rank(self, shape)
            _check_size(self, shape)
            specs_out.append(Spec(shape, out))
        return tuple(specs_out)

    def _check_dtypes(self, specs: Sequence[Spec | None]) -> np.dtype[Any]:
        dtype: np.dtype[Any] | None = None
        integers, shape_only = self.integer_inputs, self.shape_only
        for i, spec in enumerate(specs):
            if spec is None:
                if i not in self.optional_inputs:
                    raise GraphError(f"{self.label()}: input {i} must not be None")
                continue
            own = spec.dtype
            if i in integers:
                if own != INT64:
                    raise DTypeError(
                        f"{self.label()}: input {i} ({self._input_label(i)}) takes int64 labels "
                        f"and got {own.name}; declare its placeholder with dtype='int64'"
                    )
            elif i in shape_only or own is dtype:
                continue
            elif own.kind != "f":
                raise DTypeError(
                    f"{self.label()}: input {i} ({self._input_label(i)}) takes floats and got "
                    f"{own.name}"
                )
            elif dtype is None:
                dtype = own
            elif own != dtype:
                raise DTypeError(
                    f"{self.label()}: input {i} ({self._input_label(i)}) is {own.name} and "
                    f"the inputs before it are {dtype.name}; give all of them one dtype"
                )
        if dtype is None:
            given = ", ".join("None" if s is None else str(s) for s in specs) or "nothing"
            raise GraphError(f"{self.label()} needs a float input and was given {given}")
        return dtype

    def _input_label(self, i: int) -> str:
        inputs = getattr(self, "inputs", ())
        value = inputs[i] if i < len(inputs) else None
        return value.node.label() if value is not None else "absent"

    def bad_shapes(self, why: str) -> NoReturn:
        """Raise a `ShapeError` that names this node and the shapes of its inputs."""
        given = ", ".join(
            f"{self._input_label(i)} {describe(shape)}"
            for i, shape in enumerate(self._shapes_for_message)
            if i < len(self.inputs) and self.inputs[i] is not None
        )
        raise ShapeError(f"{self.label()} ({type(self).__name__}): {why}; got {given}")

    def infer_shape(self, *shapes: Any) -> Any:
        """Return the shape of each output; default: that of the first input."""
        return shapes[0]

    def gradient(self, *grads: Any) -> Sequence[Value | None]:
        """Return the gradient node of each input; see the class."""
        raise GraphError(f"{type(self).__name__} has no gradient")

    def alias(self, specs: Sequence[Spec | None], training: bool) -> int | None:
        """Return the index of the input that shares its memory with output 0, or None.

        Called with the known shapes of a feed: always 0 for a reshape, and for a dropout outside
        of training.
        """
        return None

    def lower_attributes(self, specs: Sequence[Spec | None]) -> dict[str, Any]:
        """Return the attributes for the kernel, which may depend on the shapes of the feed."""
        return self.attrs

    def pack_attributes(self, specs: Sequence[Spec | None]) -> bytes:
        """Return the block of attributes as the kernel reads it."""
        if not self.attributes:
            return b""
        values = self.lower_attributes(specs)
        try:
            return self._block.pack(values)
        except ArgumentError as error:
            raise ArgumentError(f"{self.label()}, for its kernel: {error}") from error

    def flops(
        self, specs: Sequence[Spec | None], outputs: Sequence[Spec], wanted: Sequence[bool]
    ) -> int:
        """Return the number of arithmetic operations, for the profiler.

        A multiply-add counts as two. By default an op counts one for each element of its largest
        operand, whether that takes a comparison or an exponential.

        Parameters
        ----------
        specs : of the inputs, all shapes known; None for one left out
        outputs : of the outputs
        wanted : whether somebody needs the output
        """
        read = [s for i, s in enumerate(specs) if s is not None and i not in self.shape_only]
        return max(math.prod(n or 0 for n in s.shape or ()) for s in [*read, *outputs])

    def is_elementwise(self, specs: Sequence[Spec | None]) -> bool:
        """Return whether the op is element-wise, for inputs of these specs.

        Then the kernel may be called on any stretch of the elements as a 1-D array, with its
        output in the place of an input of its size, where the shapes allow that: where every
        input has as many elements as every output, or a single one. The planner checks that; it
        is not part of this question.
        """
        return False

    def rows(self, specs: Sequence[Spec | None]) -> Rows | None:
        """Return how the op treats rows, for inputs of these specs, all shapes known.

        With an answer the planner may call the kernel on some of the rows at a time, two or more,
        with the attributes that all of them have: of an input or output that goes by rows it gets
        those rows, and the number of the first one as `first_sample`. What it writes by rows must
        be what it would write for all of them, to the bit; its other outputs are added up over the
        calls. None: it looks at several rows together, or does not say. Default: an element-wise
        op whose operands have one shape, or are single numbers, goes by rows.
        """
        if not self.is_elementwise(specs):
            return None
        shape = next((s.shape for s in specs if s is not None and s.shape), None)
        if not shape or any(s is None or s.shape not in ((), shape) for s in specs):
            return None
        return Rows(
            tuple(s is not None and s.shape == shape for s in specs), (True,) * self.output_count
        )

    def absorb(self, index: int, consumer: Op, specs: Sequence[Spec | None]) -> Op | None:
        """Return an op that also does the work of `consumer`, which reads output `index`.

        The planner calls this when nothing else reads that output. `specs` are those of the
        consumer's inputs, all of them known. The new op has the outputs of this one, with the
        consumer's in the place of output `index`. None, the default: the two are not joined.
        """
        return None

    @classmethod
    def by_rows(cls, gradients: Sequence[Op]) -> tuple[Value, Sequence[Value]] | None:
        """Return the sum of some gradients of this class by one table, as (sums, numbers).

        The sums (n, d) are rows that are added to a table (V, d), each at most one that is not
        0; `numbers` are values of int64, n in all, that say to which. None, the default: the sum
        is not made of rows.
        """
        return None

    def scratch_bytes(self, specs: Sequence[Spec | None]) -> int:
        """Return how much scratch memory the kernel needs."""
        return 0

    def scratch_pieces(self) -> int:
        """Return how often a call with the pool of threads for itself can use `scratch_bytes`."""
        return 1

    @property
    def is_still(self) -> bool:
        """Whether training leaves its states as they are, so that it runs as it does otherwise."""
        return bool(self.states) and all(isinstance(s, State) and s.frozen for s in self.states)

    @property
    def random_source(self) -> Node:
        """The node whose stream of random numbers this one draws from."""
        return self

    # ---- what the tests take ----

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        """Return the outputs for float64 arrays, in plain NumPy."""
        raise NotImplementedError(f"{cls.__name__} has no reference")

    @classmethod
    def reference_states(
        cls, *inputs: Any, states: Sequence[Array], training: bool, **attributes: Any
    ) -> tuple[Any, Sequence[Array]]:
        """Return (outputs, new states) for float64 arrays, for an op that has states."""
        raise NotImplementedError(f"{cls.__name__} has no reference_states")

    @classmethod
    def cases(cls) -> Sequence[Case]:
        """Return fixed test cases."""
        return ()

    @classmethod
    def sample(cls, draw: Any) -> Case:
        """Return a random case; `draw` is a `pyframe.testing.Draw`."""
        raise NotImplementedError(f"{cls.__name__} has no sample")

    @classmethod
    def magnitude(cls, *inputs: Any, **attributes: Any) -> tuple[int, Any]:
        """Return (k, m): the length of the reduction and the sum of its terms' absolute values.

        A result may be off by ``eps * (1 + sqrt(k)) * m``, m having the shape of the output (a
        tuple when there are several). It is 0 for a result that is one of the inputs, as a maximum
        is: gradients may compare the two. Default: 4 units in the last place of the result.
        """
        expected = cls.reference(*inputs, **attributes)
        if isinstance(expected, tuple):
            return 9, tuple(np.abs(e) for e in expected)
        return 9, np.abs(expected)


def _usual_counts(op_class: type[Op]) -> list[int]:
    """Return with how many inputs an op's cases call it, in order; none if it has no cases."""
    try:
        return sorted({len(case.inputs) for case in op_class.cases()})
    except Exception as error:  # whatever is wrong with the cases, it is not what is reported now
        raise_if_signalled(error)
        return []


def _refuse_rank(op: Op, shape: Shape) -> NoReturn:
    op.bad_shapes(f"{describe(shape)} has {len(shape)} axes, and kernels take {MAX_NDIM}")


def _check_size(op: Op, shape: Shape) -> None:
    count = 1
    for n in shape:
        count *= n or 1  # unknown and zero extents count as 1
    if count * FLOAT64.itemsize >= 2**63:
        op.bad_shapes(f"the result {describe(shape)} has more elements than memory can address")


def same_extent(a: int | None, b: int | None) -> bool:
    """Return whether two extents can be equal."""
    return a is None or b is None or a == b


def same_shape(a: Shape, b: Shape) -> bool:
    """Return whether two shapes can be equal."""
    return a == b or (
        len(a) == len(b) and all(same_extent(m, n) for m, n in zip(a, b, strict=True))
    )


def known(a: int | None, b: int | None) -> int | None:
    """Return the known one of two equal extents."""
    return b if a is None else a


def merge_shapes(a: Shape, b: Shape) -> Shape:
    """Return the shape that combines what is known of two equal ones."""
    return a if a == b else tuple(known(m, n) for m, n in zip(a, b, strict=True))


def broadcast_shapes(a: Shape, b: Shape) -> Shape | None:
    """Return the shape that two operands broadcast to, as in NumPy; None when they do not."""
    if a == b:
        return a
    rank = max(len(a), len(b))
    a = (1,) * (rank - len(a)) + a
    b = (1,) * (rank - len(b)) + b
    result: list[int | None] = []
    for m, n in zip(a, b, strict=True):
        if m == 1:
            result.append(n)
        elif n == 1 or m == n:
            result.append(m)
        elif m is None or n is None:
            result.append(known(m, n))
        else:
            return None
    return tuple(result)
