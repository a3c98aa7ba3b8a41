"""Losses and metrics by name."""

import pytest

import pyframe as pf
from pyframe.errors import ArgumentError, UnknownNameError

pytestmark = pytest.mark.once  # it says nothing of a kernel

LOSSES = {
    "L2_LOSS": "l2_loss",
    "l2": "l2_loss",
    "mse": "l2_loss",
    "l1": "l1_loss",
    "mae": "l1_loss",
    "huber": "huber_loss",
    "softmax_cross_entropy": "cross_entropy",
    "log_loss": "cross_entropy",
    "bce": "binary_cross_entropy",
}
METRICS = {"mean_absolute_error": "mae", "root_mean_squared_error": "rmse", "r2_score": "r2"}


@pytest.mark.parametrize("kind", [pf.losses, pf.metrics], ids=lambda m: m.__name__)
def test_built_ins_are_ops_of_their_names(kind):
    for name in kind.BUILT_IN:
        found = kind.get(name)
        assert found.op == name
        assert kind.get(found) is found


@pytest.mark.parametrize(("alias", "name"), LOSSES.items())
def test_other_names_of_losses(alias, name):
    assert pf.losses.get(alias).op == name


@pytest.mark.parametrize(("alias", "name"), METRICS.items())
def test_other_names_of_metrics(alias, name):
    assert pf.metrics.get(alias).op == name


@pytest.mark.parametrize("kind", ["losses", "metrics", "optimizers"])
def test_other_names_stand_for_what_there_is_and_are_no_names_themselves(kind):
    registry = pf.plugins.registry.registries[kind]
    aliases = registry.aliases()
    assert aliases and not set(aliases) & set(registry.names())
    for alias in aliases:
        assert alias in registry and registry.canonical(alias) in registry.names()


def test_the_mean_absolute_error_is_a_loss_and_a_metric():
    """A name is looked up among those of its kind; the op is called so, too."""
    assert pf.losses.get("mae") is pf.L1Loss
    assert pf.metrics.get("mae") is pf.plugins.registry.ops.get("mae") is pf.Mae


def test_a_plugins_loss_does_not_take_the_other_names_of_what_it_derives_from():
    class Scaled(pf.L2Loss):
        """Another one."""

    class Plugin:
        @pf.hookimpl
        def pyframe_register_losses(self):
            return {"scaled": Scaled}

    plugin = Plugin()
    pf.plugins.register(plugin, "scaled")
    try:
        assert pf.losses.get("scaled") is Scaled and pf.losses.get("mse") is pf.L2Loss
    finally:
        pf.plugins.unregister(plugin)


@pytest.mark.parametrize("kind", [pf.losses, pf.metrics], ids=lambda m: m.__name__)
def test_what_is_none(kind):
    with pytest.raises(UnknownNameError, match="did you mean"):
        kind.get("maee")
    for wrong in (None, 3.0, ["l2"]):
        with pytest.raises(ArgumentError, match="callable"):
            kind.get(wrong)


def test_a_callable_stays_as_it_is():
    def twice(y, y_hat, **rest):
        return 2 * pf.L2Loss(y, y_hat, **rest)

    assert pf.losses.get(twice) is twice
    assert pf.metrics.get(twice) is twice
