"""Checks of layers."""

from __future__ import annotations

import copy
import functools
import inspect
import json
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

import pyframe
from pyframe.checkpoint import LostLayer, plain_config
from pyframe.errors import UnusedParameterWarning
from pyframe.graph.spec import describe
from pyframe.layers import Layer
from pyframe.testing import behaviour
from pyframe.testing.behaviour import same_bits
from pyframe.testing.files import check_copied, check_file, computed
from pyframe.testing.hostile import check_arguments
from pyframe.testing.parts import Built, Part, PartCase, usual_cases
from pyframe.testing.refusals import check_refusals
from pyframe.testing.runner import Checks, Expected, fail, require, run_checks

Cases = Iterable[Any]


def check_layer(
    layer_class: type[Layer],
    cases: Cases | None = None,
    *,
    expected_failures: Expected | None = None,
) -> None:
    """Check a layer: its configuration, files, gradients, batches, dtypes, threads and memory.

    Parameters
    ----------
    layer_class : type of Layer
    cases : list of (shape, arguments), optional
        The shape of the input, including the batch (a tuple of shapes for several inputs), and the
        arguments of the constructor; or a `PartCase`, which also says how inputs are drawn.
        Default: the layer's own `Layer.cases`, or else the usual shapes that it takes without
        arguments.
    expected_failures : dict of str to str, optional
        Names of checks that must fail, with the reason. One that passes is an error.

    Raises
    ------
    ConformanceError
        An `AssertionError` whose `kind` says which check failed.

    See Also
    --------
    layer_checks : the checks by name.

    Examples
    --------
    >>> import pyframe as pf
    >>> from pyframe.testing import check_layer
    >>> check_layer(pf.layers.Dense, [((4, 3), {"units": 2, "activation": "tanh"})])
    """
    run_checks(layer_class.__name__, layer_checks(layer_class, cases), expected_failures)


def layer_checks(layer_class: type[Layer], cases: Cases | None = None) -> Checks:
    """Return the checks of a layer by name; each but the last runs over all cases.

    - declaration: a docstring, a name for the registry, cases to try it on.
    - config: every argument is kept and fits into JSON, and the layer made from them is the same.
    - parameters: made with `add_parameter`, used, named after the layer, and shared by all its
      calls.
    - shape, batch: the output is as declared, for 0, 1 and 7 rows; rows do not mix.
    - arguments: hostile values of arguments raise a `PyframeError`, or the layer works with them.
    - refusal: inputs of other shapes and dtypes raise a `PyframeError`, or are computed.
    - model: the same bits in a `Sequential` and as a function on nodes.
    - save: weights and outputs survive `Model.save` and `pyframe.load` to the bit.
    - copy: outputs survive `copy.deepcopy` and `pickle` to the bit.
    - sizes: rows of a large batch, and their gradients, are the same as in small ones.
    - dtype, determinism, threads, gradient, purity, modes, training, leak.

    Examples
    --------
    >>> import pyframe as pf
    >>> list(layer_checks(pf.layers.Flatten))[:2]
    ['declaration', 'config']
    """
    parts = functools.cache(lambda: _parts(layer_class, cases))
    each = {
        "config": _check_config,
        "parameters": _check_parameters,
        "shape": behaviour.check_shape,
        "refusal": check_refusals,
        "arguments": check_arguments,
        "batch": behaviour.check_batch,
        "model": _check_model,
        "save": _check_save,
        "copy": check_copied,
        **behaviour.COMMON,
        "training": _check_training,
    }
    declaration: Checks = {"declaration": lambda: _check_declaration(layer_class, parts)}
    return declaration | behaviour.over_parts(parts, each)


def _parts(layer_class: type[Layer], cases: Cases | None) -> list[Part]:
    """Return the layer with each of its cases."""
    name = layer_class.__name__
    if cases is None:
        cases = layer_class.cases() or None
    if cases is None:
        try:
            cases = usual_cases(layer_class)
        except TypeError as error:
            fail(
                "declaration",
                name,
                f"it cannot be made without arguments ({error}); pass cases=[(shape, arguments)], "
                "or give it a class method cases() that returns them",
            )
    given = [c if isinstance(c, PartCase) else PartCase(*c) for c in cases]
    require(
        given,
        "declaration",
        name,
        "there is no case to try it on: it takes none of the usual shapes; pass "
        "cases=[(shape, arguments)], or give it a class method cases() that returns them",
    )
    return [Part(name, _maker(layer_class, c.arguments), c) for c in given]


def _maker(layer_class: type[Layer], arguments: dict[str, Any]) -> Callable[..., Layer]:
    """Return what makes a layer; layers among its arguments belong to it alone."""

    @functools.wraps(layer_class.__init__)
    def make(**others: Any) -> Layer:
        return layer_class(**copy.deepcopy(arguments), **others)

    return make


def _check_declaration(layer_class: type[Layer], parts: Callable[[], list[Part]]) -> None:
    name = layer_class.__name__
    require(issubclass(layer_class, Layer), "declaration", name, "it is no pyframe.layers.Layer")
    own = layer_class.__dict__.get("__doc__")
    require(inspect.cleandoc(own or ""), "declaration", name, "it has no docstring of its own")
    takes_name = "name" in inspect.signature(layer_class.__init__).parameters
    require(
        takes_name,
        "declaration",
        name,
        "its constructor takes no name; add `*, name: str | None = None` and pass it on to "
        "super().__init__(name=name)",
    )
    try:
        layer = parts()[0].make()
    except TypeError as error:
        fail(
            "declaration",
            name,
            f"it cannot be made with {parts()[0].case.arguments!r}, the arguments of its first case"
            f" ({error}); a class that takes others than the one it derives from needs a class "
            "method cases() of its own",
        )
    assert isinstance(layer, Layer)
    require(hasattr(layer, "path"), "declaration", name, "it does not call super().__init__(name=)")
    given = layer_class(**{**parts()[0].case.arguments, "name": "of_a_test"})
    require(given.name == "of_a_test", "declaration", name, "it does not pass on its name")


# ---- configuration ----


def _check_config(part: Part) -> None:
    layer: Layer = part.make()  # type: ignore[assignment]
    before = _config(part, layer)
    after = _config(part, _copy(part, layer))
    for key, value in before.items():
        require(
            _same(value, after.get(key)),
            "config",
            part.what,
            f"config() says {key}={value!r}, and a layer made from it says {after.get(key)!r}",
        )
    text = plain_config(before)
    require(
        text is not None or any(map(callable, before.values())) or layer.sublayers,
        "config",
        part.what,
        f"config() gives {before!r}, which JSON cannot hold; use numbers, texts and lists of them",
    )
    json.dumps(text)
    for given, value in part.case.arguments.items():
        if isinstance(value, bool | int | float | str) or value is None:
            require(
                given in before and _same(before[given], value),
                "config",
                part.what,
                f"it was made with {given}={value!r}, and config() says {before.get(given)!r}; "
                f"keep it as self.{given}",
            )
    one = part.build()
    other = Part("", lambda: _copy(part, layer), part.case).build()
    arrays = part.cast(part.case.arrays(), "float32")
    for training in (False, True):
        require(
            same_bits(one.run(arrays, training), other.run(arrays, training)),
            "config",
            part.what,
            f"a layer made from its config() computes something else (training={training}): "
            f"does {before!r} say all of it?",
        )
    _config(part, one.thing)  # the same after it is built


def _config(part: Part, layer: Layer) -> dict[str, Any]:
    try:
        return layer.config()
    except AttributeError as error:
        fail(
            "config",
            part.what,
            "config() needs every argument of the constructor as an attribute of its name: "
            f"{error}",
        )


def _copy(part: Part, layer: Layer) -> Layer:
    config = layer.config()
    try:
        # Layers among the arguments are not shared with the first one.
        return type(layer).from_config(copy.deepcopy(config))
    except Exception as error:
        fail("config", part.what, f"from_config({config!r}) raised {error!r}")


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        return np.array_equal(a, b)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(_same, a, b))
    if isinstance(a, Layer) and type(a) is type(b):
        return _same([*a.config().items()], [*b.config().items()])
    return bool(a == b)


# ---- parameters ----


def _check_parameters(part: Part) -> None:
    layer: Layer = part.make()  # type: ignore[assignment]
    inputs = part.placeholders("float32")
    first = layer(*inputs)
    own = [*layer.parameters, *layer.states]
    pyframe.Model(inputs, first)  # gives each a name of its own
    names = [p.name for p in own]
    require(len(set(names)) == len(names), "parameters", part.what, f"two of one name: {names}")
    for p in own:
        require(
            (p.name or "").startswith(f"{layer.path}/"),
            "parameters",
            part.what,
            f"{p.name!r} is not named after the layer, {layer.path!r}",
        )
    second = layer(*part.placeholders("float32"))
    require(
        own == [*layer.parameters, *layer.states],
        "parameters",
        part.what,
        "its second call makes further parameters; make them in build()",
    )
    for value in (first, second):
        plan = pyframe.compile(value)
        used = [*plan.graph.parameters, *plan.graph.states]
        for p in used:
            require(
                p in own,
                "parameters",
                part.what,
                f"its graph has {p.label()!r}, which is not among its parameters and would not be "
                "restored; make it with add_parameter or add_state",
            )
        for p in own:
            require(
                p in used,
                "parameters",
                part.what,
                f"it has {p.label()!r}, and its output does not depend on it",
            )


# ---- models and files ----


def _check_model(part: Part) -> None:
    function = part.build()
    arrays = part.cast(part.case.arrays(), "float32")
    wanted = function.run(arrays)
    if len(arrays) > 1:
        return
    pyframe.set_seed(0)
    dtype = function.inputs[0].dtype
    if dtype.kind == "i":
        dtype = function.output.dtype
    model = pyframe.Sequential([part.make()], dtype=dtype)  # type: ignore[list-item]
    got = model.predict(arrays[0])
    require(
        same_bits(got, wanted),
        "model",
        part.what,
        f"in a Sequential it gives {describe(got.shape)} with other bits than as a function on "
        "nodes",
    )
    # With another layer after it, it keeps the number of rows.
    pair = pyframe.Sequential([part.make(), pyframe.layers.Flatten()])  # type: ignore[list-item]
    require(
        len(pair.predict(arrays[0])) == len(arrays[0]) or not behaviour.by_rows(function),
        "model",
        part.what,
        "with a Flatten behind it, it changes the number of rows",
    )
    require(pair.summary(), "model", part.what, "summary() is empty")


def _check_save(part: Part) -> None:
    for dtype in ("float32", "float64"):
        loaded = check_file(part, dtype)
        (layer,) = loaded.layers
        require(
            not isinstance(layer, LostLayer),
            "save",
            part.what,
            "after save and load the layer cannot be called anew, since its config() cannot be "
            "saved",
        )
        again = layer(*loaded.inputs)
        rebuilt = Built(loaded.inputs, again, pyframe.compile(again), layer)
        arrays = part.cast(part.case.arrays(), dtype)
        require(
            same_bits(rebuilt.run(arrays), computed(loaded, arrays, False)),
            "save",
            part.what,
            "after save and load, calling the layer anew gives something else than its saved "
            "graph: its configuration says another thing, or its parameters are new ones",
        )


# ---- training ----


def _check_training(part: Part) -> None:
    """Steps on an odd batch change nothing untrainable, and states only change in training."""
    pyframe.set_seed(0)
    inputs = part.placeholders("float64")
    layer = part.make()
    output = layer(*inputs)
    if output.dtype.kind != "f":
        return
    cost = pyframe.Mean(pyframe.Square(output))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnusedParameterWarning)
        plan = pyframe.compile(cost, optimizer=pyframe.optimizers.SGD(1e-3), outputs=[output])
    fixed = [p for p in plan.graph.parameters if not p.trainable]
    before = [p.value.copy() for p in fixed]
    for rows in (5, 2, 1):
        feed = dict(zip(inputs, part.cast(part.case.arrays(rows), "float64"), strict=True))
        loss = plan.step(feed)
        require(np.isfinite(loss), "training", part.what, f"the loss of {rows} row(s) is {loss}")
    for p in [*plan.graph.parameters, *plan.graph.states]:
        finite = bool(np.isfinite(p.value).all())
        require(finite, "training", part.what, f"after three steps {p.label()!r} is not finite")
    require(
        all(map(same_bits, before, [p.value for p in fixed])),
        "training",
        part.what,
        "a parameter that is not trainable has changed",
    )
