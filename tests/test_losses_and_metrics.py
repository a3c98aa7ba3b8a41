"""Losses and metrics by name."""

import pytest

import pyframe as pf
from pyframe.errors import ArgumentError, UnknownNameError
from pyframe.registry import ALIASES


@pytest.mark.parametrize("kind", [pf.losses, pf.metrics], ids=lambda m: m.__name__)
def test_built_ins_are_ops_of_their_names(kind):
    for name in kind.BUILT_IN:
        found = kind.get(name)
        assert issubclass(found, pf.Op) and found.op == name
        assert kind.get(found) is found


@pytest.mark.parametrize(("alias", "name"), ALIASES["losses"].items())
def test_other_names_of_losses(alias, name):
    assert pf.losses.get(alias).op == name


@pytest.mark.parametrize(("alias", "name"), ALIASES["metrics"].items())
def test_other_names_of_metrics(alias, name):
    assert pf.metrics.get(alias).op == name


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
