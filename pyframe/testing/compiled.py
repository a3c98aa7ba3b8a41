"""`compile`: makes a checked op of a C text and a NumPy reference, in the running process."""

from __future__ import annotations

import inspect
import itertools
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from pyframe.attributes import Rule
from pyframe.errors import ArgumentError, GraphError, raise_if_signalled
from pyframe.graph.node import Placeholder, Value
from pyframe.graph.op import Case, Op, merge_shapes, same_shape
from pyframe.graph.spec import FLOAT64, INT64, Shape, Spec
from pyframe.native import core
from pyframe.testing.capabilities import check_capabilities
from pyframe.testing.draw import Draw
from pyframe.testing.forward import check_forward
from pyframe.testing.ops import op_checks
from pyframe.testing.runner import Checks, run_checks
from pyframe.testing.toolchain import SUFFIX, build_library
from pyframe.testing.zero_extents import check_zero_extents

SHAPES = 60  # random cases of a check; `check_op` has more
GRADIENT = "_grad"

_numbers = itertools.count(1)  # for the libraries: one that was opened stays open


class Given(NamedTuple):
    """What the author of an op has stated about it."""

    reference: Callable[..., Any] | None
    infer_shape: Callable[..., Any] | None
    sample: Callable[[Draw], Any] | None
    magnitude: Callable[..., tuple[int, Any]] | None
    input_count: int


def compile(
    source: str | os.PathLike[str],
    reference: Callable[..., Any] | None = None,
    *,
    attributes: Mapping[str, float] | None = None,
    rules: Mapping[str, Rule] | None = None,
    infer_shape: Callable[..., Any] | None = None,
    sample: Callable[[Draw], Any] | None = None,
    magnitude: Callable[..., tuple[int, Any]] | None = None,
    name: str | None = None,
    check: bool = True,
) -> type[Op]:
    """Compile kernels with this machine's C compiler, load them, and return an op made of them.

    It is for trying things out in a script or a notebook: the op lives in this process. The page on
    kernels in C tells how to put it into a package.

    Parameters
    ----------
    source : str or path
        A C file, or its text. Kernels are functions ``int NAME(scan)(const pf_call *call)``, in
        which ``real`` is float or double; ``pyframe/real.h``, which is included automatically,
        defines these names and some more. A second kernel ``scan_grad`` makes the op
        differentiable: its inputs are dy and the inputs of ``scan``, its outputs the gradients of
        those inputs that are floats.
    reference : callable, optional
        ``reference(*inputs, **attributes)`` gives the output in NumPy; its positional parameters
        that are no attributes are the inputs. Without it nothing is checked.
    attributes : dict of str to float or int, optional
        Name and default of each attribute, in the order of the C struct that the kernels read: a
        float is a ``double``, an int an ``int64_t``.
    rules : dict, optional
        The values that an attribute may have, if not every number, as in `Op.rules`.
    infer_shape : callable, optional
        ``infer_shape(*shapes, **attributes)`` gives the shape of the output, or raises a
        `ValueError` that says what is wrong; an extent may be None. Default: all inputs have one
        shape, of one axis at least, and the output has it too.
    sample : callable, optional
        ``sample(draw)`` gives random inputs for a test, from a `Draw`: an array, a tuple of them,
        or a `Case`. Default: normal numbers of one shape for all inputs.
    magnitude : callable, optional
        The possible error of a sum, as in `Op.magnitude`. Default: 4 units in the last place.
    name : str, optional
        The kernel that the op uses, if there are several. Default: the only one that is not for
        gradients.
    check : bool, default True
        Run the checks of `check_op`, on fewer shapes. The gradient's kernel is compared in float64
        with differences of the reference, and in float32 with its float64 variant.

    Returns
    -------
    type of Op
        An op class; another op class may use its `kernel`.

    Raises
    ------
    MissingCompilerError
        If this machine has no C compiler; the message says what to install.
    CompilationError
        If the compiler refuses the text; the message repeats the compiler's, with line numbers.
    ConformanceError
        An `AssertionError`, if a check fails.
    ArgumentError
        If the file does not exist, or it is unclear which kernel is meant.

    See Also
    --------
    check_op : all checks, for an op class that you write yourself.

    Examples
    --------
    >>> import numpy as np, pyframe as pf
    >>> twice = pf.testing.compile(
    ...     '''
    ...     int NAME(twice)(const pf_call *call) {
    ...         for (int64_t i = 0; i < elements(call, 0); i++)
    ...             output(call, 0)[i] = 2 * input(call, 0)[i];
    ...         return PF_OK;
    ...     }
    ...     ''',
    ...     lambda x: 2 * x,
    ... )  # doctest: +SKIP
    >>> x = pf.Placeholder("x", shape=(3,))
    >>> pf.compile(twice(x)).run({x: [1, 2, 3]})  # doctest: +SKIP
    array([2., 4., 6.], dtype=float32)
    """
    if name is not None and not name.isidentifier():
        raise ArgumentError(f"name={name!r}; it is the name of a kernel in the C text")
    library, kernels = _load(source)
    op = _pick(kernels, name)
    fields = {key: _field(key, value) for key, value in (attributes or {}).items()}
    count = _input_count(reference or infer_shape, fields, sample)
    given = Given(reference, infer_shape, sample, magnitude, count)
    declared = {
        "attributes": fields,
        "defaults": dict(attributes or {}),
        "rules": dict(rules or {}),
        "given": given,
    }
    made: type[_Compiled] = type(
        _class_name(op),
        (_Compiled,),
        {**declared, "op": op, "kernel": f"{library}:{op}", "__doc__": f"The kernel {op!r}."},
    )
    drawn = made.sample(Draw(0)).inputs
    made.integer_inputs = tuple(
        i for i, array in enumerate(drawn) if array is not None and array.dtype == INT64
    )
    if op + GRADIENT in kernels:
        made.differentiable = True
        made.gradient_class = type(
            made.__name__ + "Grad",
            (_CompiledGradient,),
            {
                **declared,
                "op": op + GRADIENT,
                "kernel": f"{library}:{op}{GRADIENT}",
                "forward_class": made,
                "integer_inputs": tuple(i + 1 for i in made.integer_inputs),
                "output_count": count - len(made.integer_inputs),
                "__doc__": f"The gradients of {op!r}.",
            },
        )
    if check and reference is not None:
        run_checks(op, _checks(made))
    return made


def _load(source: str | os.PathLike[str]) -> tuple[str, list[str]]:
    """Compile and open a library; return its name and those of its kernels."""
    is_text = isinstance(source, str) and "{" in source
    folder = Path(tempfile.mkdtemp(prefix="pyframe-"))
    try:
        if is_text:
            path = folder / "kernels.c"
            path.write_text(str(source), encoding="utf-8")
        else:
            path = Path(source)
            if not path.is_file():
                raise ArgumentError(
                    f"there is no file {path}; give the path of a C file, or the C text itself"
                )
        name = f"{re.sub(r'[^0-9A-Za-z_]', '_', path.stem)}_{next(_numbers)}"
        name = name if name.isidentifier() else f"_{name}"
        built = folder / f"{name}{SUFFIX}"
        build_library(path, built, name)
        opened = core.open_library(built)
        return opened.name, list(dict.fromkeys(kernel for kernel, _ in opened.kernels))
    finally:
        shutil.rmtree(folder, ignore_errors=True)  # on Windows the open library stays


def _pick(kernels: Sequence[str], name: str | None) -> str:
    usual = [k for k in kernels if k.removesuffix(GRADIENT) not in kernels or k[-5:] != GRADIENT]
    if name is None and len(usual) == 1:
        return usual[0]
    if name is None or name not in kernels:
        what = "it has several kernels" if name is None else f"there is no kernel {name!r} in it"
        raise ArgumentError(f"{what}; give the name= of one of {', '.join(kernels)}")
    return name


def _class_name(op: str) -> str:
    return "".join(word.capitalize() for word in op.split("_"))


def _field(key: str, value: float) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ArgumentError(
            f"attributes: {key!r} is {value!r}; give a float, which is a double in C, or an int, "
            "which is an int64_t"
        )
    return "f8" if isinstance(value, float) else "i8"


def _input_count(
    function: Callable[..., Any] | None,
    fields: Mapping[str, str],
    sample: Callable[[Draw], Any] | None,
) -> int:
    """Return how many inputs an op has: as many as its function takes or its sample has."""
    if sample is not None:
        drawn = sample(Draw(0))
        return len(drawn[0]) if isinstance(drawn, Case) else len(as_inputs(drawn))
    if function is None:
        return 1
    count = 0
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is parameter.VAR_POSITIONAL:
            raise ArgumentError(f"{function} takes any number of inputs; say by sample= how many")
        by_position = parameter.kind in (
            parameter.POSITIONAL_ONLY,
            parameter.POSITIONAL_OR_KEYWORD,
        )
        if by_position and parameter.default is parameter.empty and parameter.name not in fields:
            count += 1
    return count


def as_inputs(drawn: Any) -> tuple[Any, ...]:
    """Return the inputs that a sample has drawn as a tuple of arrays."""
    return drawn if isinstance(drawn, tuple) else (drawn,)


class _Compiled(Op):
    """The base of all ops that `compile` makes."""

    differentiable = False
    given: ClassVar[Given]
    gradient_class: ClassVar[type[_CompiledGradient] | None] = None

    def infer_shape(self, *shapes: Any) -> Any:
        return self.shape_of_output(shapes)

    def shape_of_output(self, shapes: Sequence[Shape]) -> Shape:
        """Return the shape of the output, given those of the inputs of the op."""
        count = self.given.input_count
        if len(shapes) != count:
            raise GraphError(f"{self.label()} takes {count} input(s), and got {len(shapes)}")
        if self.given.infer_shape is not None:
            try:
                return tuple(self.given.infer_shape(*shapes, **self.attrs))
            except ValueError as error:
                raise_if_signalled(error)
                self.bad_shapes(str(error))
        result = shapes[0]
        for shape in shapes[1:]:
            if not same_shape(result, shape):
                self.bad_shapes(
                    "all inputs must have one shape, unless infer_shape= says otherwise"
                )
            result = merge_shapes(result, shape)
        if not result:
            self.bad_shapes("it needs an axis, unless infer_shape= says otherwise")
        return result

    def gradient(self, *grads: Any) -> Sequence[Value | None]:
        if self.gradient_class is None:
            raise GraphError(
                f"{self.label()} has no gradient: there is no kernel {self.op + GRADIENT!r} beside "
                f"{self.op!r} in the C text"
            )
        node = self.gradient_class(grads[0], *self.inputs, **self.attrs)
        floats = iter(range(node.output_count))
        return [
            None if i in self.integer_inputs else node[next(floats)]
            for i in range(len(self.inputs))
        ]

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        if cls.given.reference is None:
            raise NotImplementedError(f"{cls.__name__} was compiled without a reference")
        return cls.given.reference(*inputs, **attributes)

    @classmethod
    def magnitude(cls, *inputs: Any, **attributes: Any) -> tuple[int, Any]:
        if cls.given.magnitude is None:
            return super().magnitude(*inputs, **attributes)
        return cls.given.magnitude(*inputs, **attributes)

    @classmethod
    def sample(cls, draw: Any) -> Case:
        if cls.given.sample is not None:
            drawn = cls.given.sample(draw)
            case = isinstance(drawn, Case)
            return drawn if case else Case(as_inputs(drawn), dict(cls.defaults))
        shape = draw.shape(min_ndim=1)
        inputs = tuple(draw.normal(shape) for _ in range(cls.given.input_count))
        return Case(inputs, dict(cls.defaults))


class _CompiledGradient(_Compiled):
    """Inputs: dy and those of the op; outputs: the gradients of its float inputs."""

    forward_class: ClassVar[type[_Compiled]]

    def infer_shape(self, *shapes: Any) -> Any:
        dy, *others = shapes
        if not same_shape(dy, self.shape_of_output(others)):
            self.bad_shapes("dy must have the shape of the output")
        results = tuple(s for i, s in enumerate(others, 1) if i not in self.integer_inputs)
        return results if len(results) > 1 else results[0]

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        """Return the result of the kernel in float64, which has been compared with differences."""
        arrays = [
            np.ascontiguousarray(array, INT64 if i in cls.integer_inputs else FLOAT64)
            for i, array in enumerate(inputs)
        ]
        node = cls(
            *(Placeholder(shape=array.shape, dtype=array.dtype) for array in arrays), **attributes
        )
        outputs = [np.full(a.shape, np.nan) for a in arrays[1:] if a.dtype == FLOAT64]
        core.call_kernel(
            cls.kernel,
            64,
            list(arrays),
            list(outputs),
            attributes=node.pack_attributes([Spec(a.shape, a.dtype) for a in arrays]),
        )
        return tuple(outputs) if len(outputs) > 1 else outputs[0]

    @classmethod
    def magnitude(cls, *inputs: Any, **attributes: Any) -> tuple[int, Any]:
        """Return bounds for rounding errors relative to the largest element."""
        expected = cls.reference(*inputs, **attributes)
        results = expected if isinstance(expected, tuple) else (expected,)
        terms = max(9, *(array.size for array in inputs))
        bounds = tuple(np.full(r.shape, np.max(np.abs(r), initial=0.0)) for r in results)
        return terms, bounds if len(bounds) > 1 else bounds[0]

    @classmethod
    def sample(cls, draw: Any) -> Case:
        inputs, attributes, _ = cls.forward_class.sample(draw)
        y = np.asarray(cls.forward_class.reference(*inputs, **attributes))
        return Case((draw.normal(y.shape), *inputs), attributes)


def _checks(op: type[_Compiled]) -> Checks:
    """Return the checks of an op, and those of its gradient that differences do not cover."""
    checks = op_checks(op, shapes=SHAPES)
    del checks["declaration"]  # this module declares it
    grad = op.gradient_class
    if grad is not None:

        def check_values() -> None:
            for dtype in ("float32", "float64"):
                check_forward(grad, dtype, shapes=SHAPES)

        checks["gradient kernel"] = check_values
        checks["gradient without elements"] = lambda: check_zero_extents(grad)
        checks["gradient capability"] = lambda: check_capabilities(grad)
    return checks
