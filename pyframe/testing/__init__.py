"""The conformance kit: checks for the built-in parts and for those of plugins.

In come op classes, layers, optimizers and the rest, from pyframe or from a plugin. Out go checks,
each with a name and a seed, that pass or say what is wrong; the expected numbers come from NumPy.
"""

from pyframe.errors import MissingExtraError

try:
    from pyframe.testing.bad_calls import check_bad_calls
    from pyframe.testing.capabilities import check_capabilities
    from pyframe.testing.compiled import compile
    from pyframe.testing.composites import check_composite
    from pyframe.testing.draw import Draw
    from pyframe.testing.fits import (
        callback_checks,
        check_callback,
        check_communicator,
        check_dataset,
        communicator_checks,
        dataset_checks,
    )
    from pyframe.testing.forward import check_forward
    from pyframe.testing.gradients import check_gradients
    from pyframe.testing.graph_checks import check_graphs
    from pyframe.testing.hostile import check_attributes
    from pyframe.testing.layers import check_layer, layer_checks
    from pyframe.testing.losses import check_loss, loss_checks
    from pyframe.testing.metrics import check_metric, metric_checks
    from pyframe.testing.nodes import check_node, node_checks
    from pyframe.testing.numbers import (
        check_initializer,
        check_schedule,
        initializer_checks,
        schedule_checks,
    )
    from pyframe.testing.ops import check_declaration, check_op, op_checks
    from pyframe.testing.optimizers import check_optimizer, optimizer_checks
    from pyframe.testing.parts import PartCase
    from pyframe.testing.penalties import (
        check_constraint,
        check_regularizer,
        constraint_checks,
        regularizer_checks,
    )
    from pyframe.testing.plugins import check_plugin, conformance, plugin_checks
    from pyframe.testing.scales import check_scales
    from pyframe.testing.sizes import check_sizes
    from pyframe.testing.subject import ConformanceError, Kernels
    from pyframe.testing.zero_extents import check_zero_extents
except ModuleNotFoundError as error:
    if not (error.name or "").startswith("pyframe.testing."):
        raise
    raise MissingExtraError(
        "the conformance kit, pyframe.testing, is a package of its own and is not installed; "
        'install it with: pip install "pyframe-nn[testing]"'
    ) from error

__all__ = [
    "ConformanceError",
    "Draw",
    "Kernels",
    "PartCase",
    "callback_checks",
    "check_attributes",
    "check_bad_calls",
    "check_callback",
    "check_capabilities",
    "check_communicator",
    "check_composite",
    "check_constraint",
    "check_dataset",
    "check_declaration",
    "check_forward",
    "check_gradients",
    "check_graphs",
    "check_initializer",
    "check_layer",
    "check_loss",
    "check_metric",
    "check_node",
    "check_op",
    "check_optimizer",
    "check_plugin",
    "check_regularizer",
    "check_scales",
    "check_schedule",
    "check_sizes",
    "check_zero_extents",
    "communicator_checks",
    "compile",
    "conformance",
    "constraint_checks",
    "dataset_checks",
    "initializer_checks",
    "layer_checks",
    "loss_checks",
    "metric_checks",
    "node_checks",
    "op_checks",
    "optimizer_checks",
    "plugin_checks",
    "regularizer_checks",
    "schedule_checks",
]
