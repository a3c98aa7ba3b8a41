"""The conformance kit: what the project checks its own parts with, and a plugin's author theirs."""

from pyframe.testing.bad_calls import check_bad_calls
from pyframe.testing.draw import Draw
from pyframe.testing.forward import check_forward
from pyframe.testing.gradients import check_gradients
from pyframe.testing.layers import check_layer, layer_checks
from pyframe.testing.ops import check_declaration, check_op
from pyframe.testing.optimizers import check_optimizer, optimizer_checks
from pyframe.testing.parts import PartCase
from pyframe.testing.subject import ConformanceError, Kernels

__all__ = [
    "ConformanceError",
    "Draw",
    "Kernels",
    "PartCase",
    "check_bad_calls",
    "check_declaration",
    "check_forward",
    "check_gradients",
    "check_layer",
    "check_op",
    "check_optimizer",
    "layer_checks",
    "optimizer_checks",
]
