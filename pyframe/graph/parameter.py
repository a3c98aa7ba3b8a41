"""Parameters and states: arrays that training changes, and what keeps them in flat buffers."""

from __future__ import annotations

import copy
import math
from collections import deque
from collections.abc import Callable, Sequence
from itertools import chain, repeat
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from pyframe.errors import ArgumentError, GraphError, ShapeError, check_flag
from pyframe.graph.node import LEAF_ATTRIBUTES, Leaf, Value, set_slot
from pyframe.graph.spec import Array, Spec, check_shape, convert, describe, float_dtype, known_shape
from pyframe.graph.storage import Storage
from pyframe.native.building import building
from pyframe.strict import Strict


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
        set_slot(self, "_regularizer", _function_or_none("regularizer", regularizer))
        set_slot(self, "_constraint", _function_or_none("constraint", constraint))
        set_slot(self, "_trainable", check_flag("trainable", trainable))
        set_slot(self, "_group", group)
        set_slot(self, "_place", None)
        if hasattr(value, "materialize"):
            # With the seed of now, which may be another one when the numbers are drawn.
            with_seed = getattr(value, "with_seed", None)
            set_slot(self, "_initial", value if with_seed is None else with_seed())
            shape = check_shape(value.shape, f"parameter {name or ''}")
        else:
            array = np.array(convert(value, wanted, f"parameter {name or ''}".strip()))
            set_slot(self, "_initial", array)
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
        set_slot(self, "_frozen", check_flag("frozen", frozen))
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
