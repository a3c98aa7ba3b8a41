"""All checks of everything that a plugin registers."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from importlib.util import find_spec
from typing import Any
from unittest import SkipTest

from pyframe import callbacks, plugins, schedules
from pyframe.datasets import load_mnist
from pyframe.errors import ArgumentError, raise_if_signalled
from pyframe.plugins.discovery import normalized
from pyframe.plugins.registry import BUILT_IN, registries
from pyframe.testing.apart import run_apart
from pyframe.testing.fits import callback_checks, communicator_checks, dataset_checks
from pyframe.testing.layers import layer_checks
from pyframe.testing.losses import loss_checks
from pyframe.testing.metrics import metric_checks
from pyframe.testing.numbers import initializer_checks, schedule_checks
from pyframe.testing.ops import op_checks
from pyframe.testing.optimizers import optimizer_checks
from pyframe.testing.penalties import constraint_checks, regularizer_checks
from pyframe.testing.runner import Checks, Expected, checked, known_names, require, run_checks
from pyframe.testing.subject import ConformanceError

CHECKS: dict[str, Callable[..., Checks]] = {
    "ops": op_checks,
    "layers": layer_checks,
    "losses": loss_checks,
    "optimizers": optimizer_checks,
    "schedules": schedule_checks,
    "initializers": initializer_checks,
    "regularizers": regularizer_checks,
    "constraints": constraint_checks,
    "metrics": metric_checks,
    "callbacks": callback_checks,
    "datasets": dataset_checks,
    "communicators": communicator_checks,
}

Options = Mapping[str, Mapping[str, Any]]

FEW_SHAPES = 24  # of the ops that are built in, each of which pyframe's own tests try on more


class _Folder:
    """A folder that goes, without a word, when nobody holds it any more; copies hold the same."""

    def __init__(self) -> None:
        self.name = tempfile.mkdtemp(prefix="pyframe-")

    def __deepcopy__(self, memo: dict[int, Any]) -> _Folder:
        return self

    def __del__(self, remove: Any = shutil.rmtree) -> None:
        remove(self.name, ignore_errors=True)


def _writing(cls: Any, needs: str = "", **options: Any) -> Any:
    """Return a callback that writes into a folder of its own, which goes when it goes."""
    if needs and find_spec(needs) is None:
        raise SkipTest(f"not tried: {needs} is not installed")
    folder = _Folder()
    made = cls(os.path.join(folder.name, "written"), **options)
    vars(made)["holds"] = folder  # as long as it lives
    return made


def _without_server() -> Any:
    raise SkipTest("not tried: a run of MLflow would be left behind")


def _with_rich() -> Any:
    if find_spec("rich") is None:
        raise SkipTest("not tried: rich is not installed")
    return callbacks.RichProgressBar()


def _mnist() -> Any:
    """Return MNIST, or skip the test where its files are not."""
    if not os.environ.get("PYFRAME_DATA"):
        raise SkipTest("not tried: PYFRAME_DATA does not name a folder with MNIST's files")
    return load_mnist()


def _frames(draw: Any, rows: int) -> Any:
    """Return short targets and the logits of longer sequences."""
    return draw.labels((rows, 2), 3), draw.normal((rows, 6, 3))


# How the built-in parts are tried that need arguments, or files that not everybody has.
BUILT_IN_OPTIONS: Options = {
    "losses.ctc_loss": {"draw": _frames},
    "optimizers.adadelta": {"learning_rate": 10.0},
    "optimizers.lars": {"learning_rate": 20.0, "elementwise": False},
    "optimizers.lamb": {"elementwise": False},
    "optimizers.sam": {"elementwise": False},
    "optimizers.lbfgs": {"elementwise": False},
    "optimizers.muon": {"elementwise": False},
    "schedules.constant": {"factory": partial(schedules.Constant, 0.1)},
    "schedules.step": {"factory": partial(schedules.Step, 0.1, every=3)},
    "schedules.exponential": {"factory": partial(schedules.Exponential, 0.1, decay=0.9)},
    "schedules.cosine": {"factory": partial(schedules.Cosine, 0.1, total_steps=50, warmup_steps=5)},
    "schedules.multi_step": {"factory": partial(schedules.MultiStep, 0.1, [5, 20])},
    "schedules.polynomial": {"factory": partial(schedules.Polynomial, 0.1, total_steps=50)},
    "schedules.cosine_restarts": {
        "factory": partial(schedules.CosineRestarts, 0.1, period=4, growth=2)
    },
    "schedules.one_cycle": {"factory": partial(schedules.OneCycle, 0.1, total_steps=50)},
    "schedules.cyclic": {"factory": partial(schedules.Cyclic, 0.01, 0.1, half=5)},
    "schedules.warmup": {
        "factory": partial(schedules.Warmup, schedules.Exponential(0.1, decay=0.9), steps=5)
    },
    "callbacks.model_checkpoint": {
        "factory": partial(_writing, callbacks.ModelCheckpoint, every=2)
    },
    "callbacks.csv_logger": {"factory": partial(_writing, callbacks.CSVLogger)},
    "callbacks.json_logger": {"factory": partial(_writing, callbacks.JSONLogger)},
    "callbacks.tensor_board": {
        "factory": partial(_writing, callbacks.TensorBoard, "tensorboardX", histograms=2)
    },
    "callbacks.rich_progress_bar": {"factory": _with_rich},
    "callbacks.mlflow_logger": {"factory": _without_server},
    "callbacks.time_limit": {"factory": partial(callbacks.TimeLimit, hours=1)},
    "callbacks.learning_rate_scheduler": {
        "factory": partial(callbacks.LearningRateScheduler, lambda epoch: 0.1 / (1 + epoch))
    },
    "datasets.mnist": {"factory": _mnist},
}


def check_plugin(
    plugin: Any,
    *,
    options: Options | None = None,
    expected_failures: Expected | None = None,
) -> None:
    """Run the checks of everything that a plugin registers.

    Parameters
    ----------
    plugin : str or object
        The name of an installed distribution, or a module or object with hooks, which is registered
        if necessary.
    options : dict, optional
        Keyword arguments of checks, by ``"<kind>.<name>"`` of the thing to check: ``{"layers.conv":
        {"cases": [...]}}``. With ``"factory"``, the given callable is checked instead, which makes
        the thing without arguments, as a schedule needs.
    expected_failures : dict of str to str, optional
        Names of checks that must fail, ``"<kind>.<name>:<check>"``, each with the reason. If one
        passes, that is an error.

    Raises
    ------
    ConformanceError
        An `AssertionError` whose `kind` says which check failed.
    PluginError
        If the plugin is not installed, or is set aside.
    ArgumentError
        If options or expected failures name something that the plugin does not have.

    See Also
    --------
    conformance : the same checks as cases for pytest.

    Examples
    --------
    >>> import pyframe as pf
    >>> from pyframe.testing import check_plugin
    >>> class Mine:
    ...     @pf.hookimpl
    ...     def pyframe_register_losses(self):
    ...         return {"twice_l2": lambda y, y_hat, **rest: 2 * pf.L2Loss(y, y_hat, **rest)}
    >>> mine = Mine()
    >>> check_plugin(mine)
    >>> pf.plugins.unregister(mine)
    """
    what = plugin if isinstance(plugin, str) else _label(plugin)
    run_checks(what, plugin_checks(plugin, options=options), expected_failures)


def plugin_checks(plugin: Any, *, options: Options | None = None) -> Checks:
    """Return the checks of everything that a plugin registers, by ``"<kind>.<name>:<check>"``.

    The first is ``"plugin:names"``: each name gives what was registered under it.

    Examples
    --------
    >>> import pyframe as pf
    >>> list(plugin_checks("pyframe-nn"))[:2]
    ['plugin:names', 'ops.abs:declaration']
    """
    things = dict(_things(plugin))
    require(things, "declaration", str(plugin), "it registers nothing")
    given = {**(BUILT_IN_OPTIONS if plugin == BUILT_IN else {}), **(options or {})}
    for key in options or {}:
        if key not in things:
            raise ArgumentError(
                f"options are given for {key!r}, which the plugin does not register; it has "
                f"{', '.join(things)}"
            )

    def check_names() -> None:
        for key, thing in things.items():
            kind, _, name = key.partition(".")
            found = registries[kind].get(name)
            require(found is thing, "names", key, f"the name {name!r} leads to {found!r}")

    checks: Checks = {"plugin:names": check_names}
    for key, thing in things.items():
        arguments = dict(given.get(key, {}))
        subject = arguments.pop("factory", thing)
        kind = key.partition(".")[0]
        if plugin == BUILT_IN and kind == "ops":
            arguments.setdefault("shapes", FEW_SHAPES)
        for name, check in _checks_of(kind, key, subject, arguments).items():
            checks[f"{key}:{name}"] = check
    return checks


def _checks_of(kind: str, key: str, subject: Any, arguments: Mapping[str, Any]) -> Checks:
    """Return the checks of one thing; one that fails, where it states what makes no sense."""
    try:
        return CHECKS[kind](subject, **arguments)
    except Exception as error:
        raise_if_signalled(error)
        if arguments:  # which may be what is wrong
            raise
        cause = error

        def check_declaration() -> None:
            raise ConformanceError(
                "declaration",
                f"{key}: {type(cause).__name__} came out of what it declares: {cause}",
            ) from cause

        return {"declaration": check_declaration}


def _label(plugin: Any) -> str:
    return str(getattr(plugin, "__name__", type(plugin).__name__))


def _things(plugin: Any) -> Iterator[tuple[str, Any]]:
    """Yield what a plugin registers as ("<kind>.<name>", thing), in the order of the kinds."""
    if isinstance(plugin, str):
        own = normalized(plugin)

        def load() -> None:
            plugins.load(plugin)

        if own != BUILT_IN:  # what ends the process, ends that of a child
            run_apart(f"{plugin}: loading it", load, foreign=True)
        for kind, registry in registries.items():
            if own == BUILT_IN:  # and no plugin is loaded
                names = registry.built_ins()
            else:
                names = sorted(plugins.load(plugin).things.get(kind, ()))
            for name in names:
                yield f"{kind}.{name}", registry.get(f"{plugin}:{name}")
        return
    if not plugins.manager().is_registered(plugin):
        plugins.register(plugin, _label(plugin))
    for kind, named in plugins.things_of(plugin, _label(plugin)).items():
        for name in named:
            yield f"{kind}.{name}", registries[kind].get(name)


def conformance(
    plugin: Any,
    *,
    options: Options | None = None,
    expected_failures: Expected | None = None,
) -> list[Any]:
    """Return all checks of a plugin as cases for ``pytest.mark.parametrize``.

    Parameters
    ----------
    plugin, options, expected_failures
        The same as for `check_plugin`. Expected failures are marked as strict ``xfail``.

    Returns
    -------
    list of pytest.param
        Each holds one function without arguments; its id is the name of the check.

    Examples
    --------
    A whole test file::

        import pytest
        from pyframe.testing import conformance

        @pytest.mark.parametrize("check", conformance("my-package"))
        def test_conformance(check):
            check()

    Examples
    --------
    >>> conformance("pyframe-nn")[0].id
    'plugin:names'
    """
    import pytest

    checks = plugin_checks(plugin, options=options)
    expected = expected_failures or {}
    known_names(expected, checks, str(plugin))
    cases = []
    for name, check in checks.items():
        marks = []
        if name in expected:
            marks.append(
                pytest.mark.xfail(reason=expected[name], strict=True, raises=AssertionError)
            )
        thing = name.rpartition(":")[0]
        cases.append(
            pytest.param(checked(thing, name.rpartition(":")[2], check), id=name, marks=marks)
        )
    return cases
