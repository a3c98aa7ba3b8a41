"""The errors of pyframe.

Each is a `PyframeError` and also the built-in type that one would expect, so that
``except ValueError`` works for someone who has never read this page. A message says what was
given, what was expected, at which node, and what to do.
"""

import contextlib
import functools
import math
import operator
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from contextvars import ContextVar
from types import FrameType, TracebackType
from typing import Any, NamedTuple

PACKAGE = os.path.dirname(__file__) + os.sep
WRAPPER = os.path.join("sklearn", "base.py")  # where scikit-learn wraps `fit`

__all__ = [
    "AnomalyError",
    "ArgumentError",
    "BusyError",
    "CheckpointError",
    "CompilationError",
    "CopyError",
    "DTypeError",
    "DatasetError",
    "DivergenceWarning",
    "FeedError",
    "FitManyError",
    "GraphError",
    "KernelError",
    "LabelError",
    "MissingCompilerError",
    "MissingExtraError",
    "NoEffectError",
    "PluginError",
    "PyframeDeprecationWarning",
    "PyframeError",
    "ResourceError",
    "ShapeError",
    "SlotError",
    "UndefinedMetricWarning",
    "UnknownArgumentError",
    "UnknownNameError",
    "UnusedParameterWarning",
    "ValueReusedError",
]  # what `import pyframe` brings along


class PyframeError(Exception):
    """The base of all errors that pyframe raises.

    Examples
    --------
    >>> issubclass(PyframeError, Exception)
    True
    """


class ShapeError(PyframeError, ValueError):
    """Shapes do not fit each other, or do not fit what a node declares.

    Examples
    --------
    >>> import pyframe as pf
    >>> pf.Constant([1.0, 2.0]) + [1.0, 2.0, 3.0]
    Traceback (most recent call last):
    ...
    pyframe.errors.ShapeError: add (Add): the operands do not...
    """


class DTypeError(PyframeError, TypeError):
    """An array has an element type that the node cannot take.

    Examples
    --------
    >>> import pyframe as pf
    >>> pf.Constant(["a"])
    Traceback (most recent call last):
    ...
    pyframe.errors.DTypeError: constant takes float32 and got str32;...
    """


class GraphError(PyframeError, ValueError):
    """A graph is malformed: a cycle, a missing input, a loss that is not a scalar.

    Examples
    --------
    >>> import pyframe as pf
    >>> pf.Sequential([pf.layers.Dense(1)]).graph
    Traceback (most recent call last):
    ...
    pyframe.errors.GraphError: this model has not seen its input yet...
    """


class FeedError(PyframeError, KeyError):
    """A placeholder is not fed, or something is fed that the graph does not know.

    Examples
    --------
    >>> import pyframe as pf
    >>> pf.compile(pf.Placeholder("x", shape=()) + 1.0).run({})
    Traceback (most recent call last):
    ...
    pyframe.errors.FeedError: placeholder 'x' is not fed; pass a feed with 'x'
    """

    def __str__(self) -> str:  # KeyError would show the repr
        return str(self.args[0]) if self.args else ""


class LabelError(PyframeError, IndexError):
    """An integer label lies outside of the classes.

    Attributes
    ----------
    index : int or None
        The flat index of the label in its operand, if the kernel reported it.

    Examples
    --------
    >>> import pyframe as pf
    >>> pf.compile(pf.OneHot(pf.Constant([7], dtype="int64"), classes=3)).run({})
    Traceback (most recent call last):
    ...
    pyframe.errors.LabelError: take: index 7 at position 0 of input 1...
    """

    index: int | None = None


class ArgumentError(PyframeError, ValueError):
    """An argument has a value that makes no sense: a negative rate, an empty batch.

    Examples
    --------
    >>> import pyframe as pf
    >>> pf.optimizers.SGD(-1.0)
    Traceback (most recent call last):
    ...
    pyframe.errors.ArgumentError: learning rate -1.0 must be a finite number, at least 0
    """


class UnknownArgumentError(ArgumentError, TypeError):
    """A function was given an argument that it has not; it says which one is meant.

    Examples
    --------
    >>> import pyframe as pf
    >>> pf.optimizers.SGD(lr=0.1)
    Traceback (most recent call last):
    ...
    pyframe.errors.UnknownArgumentError: SGD has no argument 'lr'; write learning_rate=
    """


class NoEffectError(ArgumentError, AttributeError):
    """An attribute was set that nothing reads, or that has been read already.

    Examples
    --------
    >>> issubclass(NoEffectError, AttributeError)
    True
    """


class UnknownNameError(PyframeError, KeyError):
    """A name stands for nothing that is registered.

    Examples
    --------
    >>> import pyframe as pf
    >>> pf.optimizers.get("adm")
    Traceback (most recent call last):
    ...
    pyframe.errors.UnknownNameError: there is no 'adm' among the optimizers;...
    """

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class SlotError(GraphError, KeyError, AttributeError):
    """An array was wanted that nobody keeps, or one was put in the place of another.

    That is a slot which an optimizer does not declare, or what ``forward`` has not left on ``ctx``.

    Examples
    --------
    >>> issubclass(SlotError, KeyError)
    True
    """

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class ValueReusedError(PyframeError, RuntimeError):
    """A value was not kept: its memory has been reused for another one.

    Examples
    --------
    >>> issubclass(ValueReusedError, RuntimeError)
    True
    """


class BusyError(PyframeError, RuntimeError):
    """Another thread or plan is training these parameters.

    Examples
    --------
    >>> issubclass(BusyError, RuntimeError)
    True
    """


class AnomalyError(PyframeError, ArithmeticError):
    """NaN or infinity was found by a check: `detect_anomaly`, or the clipping of gradients.

    Examples
    --------
    >>> issubclass(AnomalyError, ArithmeticError)
    True
    """


class ResourceError(PyframeError, MemoryError):
    """There is not enough memory for what was requested.

    Examples
    --------
    >>> issubclass(ResourceError, MemoryError)
    True
    """


class KernelError(PyframeError, RuntimeError):
    """A kernel refused its operands for a reason of its own.

    Examples
    --------
    >>> issubclass(KernelError, RuntimeError)
    True
    """


class PluginError(PyframeError, RuntimeError):
    """A plugin could not be loaded, or broke a rule of the registry.

    Examples
    --------
    >>> issubclass(PluginError, RuntimeError)
    True
    """


class CompilationError(PyframeError, RuntimeError):
    """A C compiler refused the text of a kernel; the message repeats what it said.

    Examples
    --------
    >>> issubclass(CompilationError, RuntimeError)
    True
    """


class MissingCompilerError(PyframeError, OSError):
    """There is no C compiler on this machine, and one is needed.

    Examples
    --------
    >>> issubclass(MissingCompilerError, OSError)
    True
    """


class CheckpointError(PyframeError, ValueError):
    """A file is not a pyframe model, is damaged, or needs something that is missing.

    Examples
    --------
    >>> issubclass(CheckpointError, ValueError)
    True
    """


class CopyError(PyframeError, TypeError):
    """An object can be neither copied nor pickled; the message says what to copy instead.

    Examples
    --------
    >>> issubclass(CopyError, TypeError)
    True
    """


class DatasetError(PyframeError, ValueError):
    """A data file is missing or invalid.

    Examples
    --------
    >>> issubclass(DatasetError, ValueError)
    True
    """


class MissingExtraError(PyframeError, ImportError):
    """A package that belongs to one of the extras is not installed.

    Examples
    --------
    >>> issubclass(MissingExtraError, ImportError)
    True
    """


class FitManyError(PyframeError, RuntimeError):
    """Some of the fits that ran side by side have failed; the others are complete.

    Attributes
    ----------
    index : int
        The number of the first one that failed; its error is the cause of this one.
    errors : dict of int to Exception
        All errors, by the number of the fit.
    results : list
        What `fit_many` would have returned, None for those that failed.

    Examples
    --------
    >>> issubclass(FitManyError, RuntimeError)
    True
    """

    def __init__(
        self, message: str, index: int, errors: dict[int, BaseException], results: list[Any]
    ) -> None:
        super().__init__(message, index, errors, results)
        self.index, self.errors, self.results = index, errors, results

    def __str__(self) -> str:
        return str(self.args[0])


class PyframeDeprecationWarning(DeprecationWarning):
    """A deprecated feature was used; the message names its replacement and when it is removed.

    Python shows it where the calling code is the script itself, and pytest always does.

    Examples
    --------
    >>> issubclass(PyframeDeprecationWarning, DeprecationWarning)
    True
    """


class DivergenceWarning(RuntimeWarning):
    """A loss has become NaN or infinite, and the fit goes on with it.

    Examples
    --------
    >>> issubclass(DivergenceWarning, RuntimeWarning)
    True
    """


class UndefinedMetricWarning(UserWarning):
    """A metric has no value for what was counted, such as the precision of a class never predicted.

    The message says what was taken instead.

    Examples
    --------
    >>> issubclass(UndefinedMetricWarning, UserWarning)
    True
    """


class UnusedParameterWarning(UserWarning):
    """A parameter does not influence the loss, so training leaves it as it is.

    Examples
    --------
    >>> issubclass(UnusedParameterWarning, UserWarning)
    True
    """


def signalled(error: BaseException) -> BaseException | None:
    """Return the exception that a signal handler raised, if the given one is it or stems from it.

    Such an exception is meant for the program. It may occur anywhere and be of any type, so it says
    nothing about the code that it interrupted.
    """
    frames = [step.tb_frame for step in _steps(error)]
    if len(frames) < 2:  # it was raised where it is caught
        return None
    handlers = map(signal.getsignal, _signals())
    codes = {_code_of(handler) for handler in handlers if callable(handler)}
    found: BaseException | None = error
    while found is not None:
        steps = list(_steps(found))
        if not steps or steps[0].tb_frame not in frames:
            return None  # it was caught further out, by a caller that is still handling it
        if any(step.tb_frame.f_code in codes for step in steps):
            return found
        found = found.__context__  # other packages also convert the exceptions that they catch
    return None


@functools.cache
def _signals() -> tuple[int, ...]:
    """Return the numbers of all signals, which take as long to list as their handlers."""
    return tuple(map(int, signal.valid_signals()))


def _steps(error: BaseException) -> Iterator[TracebackType]:
    step = error.__traceback__
    while step is not None:
        yield step
        step = step.tb_next


def _code_of(handler: Any) -> Any:
    while isinstance(handler, functools.partial):
        handler = handler.func
    if not hasattr(handler, "__code__"):
        handler = type(handler).__call__
    return getattr(handler, "__code__", None)


def raise_if_signalled(error: BaseException) -> None:
    """Reraise the exception of a signal handler, if the given one stems from it.

    Call it first in every `except` block that converts or ignores exceptions of a type that a
    signal handler may raise too.
    """
    if (raised := signalled(error)) is not None:
        raise raised


class forgiving(contextlib.suppress):  # noqa: N801
    """Suppress exceptions, as `contextlib.suppress` does, except those of signal handlers."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        if error is not None and signalled(error) is error:
            return False
        return super().__exit__(kind, error, trace)


def require_extra(module: str, extra: str) -> Any:
    """Import an optional module, or say which extra brings it.

    Raises
    ------
    MissingExtraError
        If the module is not installed.
    """
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.split(".")[0]
        raise MissingExtraError(
            f"{package} is needed for this and is not installed; "
            f'install it with: pip install "pyframe-nn[{extra}]"'
        ) from error


def check_number(
    what: str,
    value: Any,
    *,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
) -> float:
    """Return a value as a float if it is a finite number within the bounds.

    Raises
    ------
    ArgumentError
        Otherwise, naming the argument, the value and the bounds.
    """
    bounds = {"at least": at_least, "above": above, "at most": at_most, "below": below}
    wanted = " and ".join(
        f"{word} {bound:g}" for word, bound in bounds.items() if bound is not None
    )
    message = f"{what} is {value!r}; it must be a finite number{', ' if wanted else ''}{wanted}"
    if isinstance(value, bool | str | bytes):
        raise ArgumentError(message)
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise_if_signalled(error)
        raise ArgumentError(message) from error
    inside = (
        math.isfinite(number)
        and (at_least is None or number >= at_least)
        and (above is None or number > above)
        and (at_most is None or number <= at_most)
        and (below is None or number < below)
    )
    if not inside:
        raise ArgumentError(message)
    return number


class Task(NamedTuple):
    """A task that threads of this package do for somebody, whose line warnings are to name.

    It is somebody's of the context in which `enter` was called.
    """

    file: str
    line: int
    module: str
    registry: dict[Any, Any]

    @classmethod
    def of_caller(cls) -> "Task":
        """Return a task of the code that called this package."""
        frame, _ = _outside(sys._getframe(1))
        if frame is None:
            return cls("sys", 1, "sys", {})
        names = frame.f_globals
        registry = names.setdefault("__warningregistry__", {})
        return cls(
            frame.f_code.co_filename, frame.f_lineno, names.get("__name__", "<unknown>"), registry
        )

    def enter(self, what: str) -> None:
        """Have warnings in the present context belong to this task, and end with some words."""
        _task.set((self, what))


_task: ContextVar[tuple[Task, str] | None] = ContextVar("pyframe_task", default=None)


def _outside(frame: FrameType | None) -> tuple[FrameType | None, int]:
    """Return the frame that called this package, and how many calls away it is."""
    level = 1
    while frame is not None:
        file = frame.f_code.co_filename
        if not (file.startswith(PACKAGE) or file.endswith(WRAPPER)):
            break
        frame, level = frame.f_back, level + 1
    return frame, level


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn at the line that called this package, however deep the call stack is.

    Nothing happens if ``sys.stderr`` is closed.
    """
    frame, level = _outside(sys._getframe(1))
    task, what = _task.get() or (None, "")
    try:
        if task is None:
            warnings.warn(message, category, stacklevel=level + 1)
        elif frame is None or frame.f_code.co_filename == threading.__file__:
            warnings.warn_explicit(
                f"{message} ({what})", category, task.file, task.line, task.module, task.registry
            )
        else:  # code of the user that the task has called
            warnings.warn(f"{message} ({what})", category, stacklevel=level + 1)
    except Warning:  # a filter makes it an error
        raise
    except (OSError, ValueError) as error:
        raise_if_signalled(error)
        return


def check_flag(what: str, value: Any) -> bool:
    """Return a value as a bool if it is one, NumPy's included.

    Raises
    ------
    ArgumentError
        Otherwise: a text such as "no" would count as true.
    """
    if value is True or value is False:
        return value
    if type(value).__name__ in ("bool", "bool_") and type(value).__module__ == "numpy":
        return bool(value)
    raise ArgumentError(f"{what} is {value!r}; it must be True or False")


def check_integer(
    what: str, value: Any, *, at_least: int | None = None, at_most: int | None = None
) -> int:
    """Return a value as an int if it is an integer within the bounds.

    Raises
    ------
    ArgumentError
        Otherwise, naming the argument, the value and the bounds.
    """
    bounds = {"at least": at_least, "at most": at_most}
    wanted = " and ".join(f"{word} {bound}" for word, bound in bounds.items() if bound is not None)
    message = f"{what} is {value!r}; it must be an integer{', ' if wanted else ''}{wanted}"
    if isinstance(value, bool):
        raise ArgumentError(message)
    try:
        number = operator.index(value)
    except TypeError as error:
        raise_if_signalled(error)
        raise ArgumentError(message) from error
    if (at_least is not None and number < at_least) or (at_most is not None and number > at_most):
        raise ArgumentError(message)
    return number
