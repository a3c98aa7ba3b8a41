"""Pictures: data with fitted curves, loss curves, graphs and how they are computed, images.

In come histories, models, plans and arrays. Every function returns a
``matplotlib.figure.Figure``, to be kept with ``figure.savefig(path)``.
Needs the extra ``plot`` (matplotlib and networkx); no window is ever opened.
"""

from pyframe.plotting.charts import (
    confusion_matrix,
    curves,
    gradient_norms,
    history,
    image_grid,
    learning_rate_finder,
    loss_curve,
    scatter_with_line,
    schedule,
)
from pyframe.plotting.graphs import backward_steps, draw_graph, forward_steps, graph_layout
from pyframe.plotting.images import feature_maps, filters
from pyframe.plotting.learned import (
    attention,
    calibration,
    confusion,
    decision_boundary,
    embedding,
    gradient_flow,
    loss_surface,
    roc,
    weights,
)
from pyframe.plotting.models import model
from pyframe.plotting.roofline import roofline
from pyframe.plotting.stepper import Page, stepper

__all__ = [
    "Page",
    "attention",
    "backward_steps",
    "calibration",
    "confusion",
    "confusion_matrix",
    "curves",
    "decision_boundary",
    "draw_graph",
    "embedding",
    "feature_maps",
    "filters",
    "forward_steps",
    "gradient_flow",
    "gradient_norms",
    "graph_layout",
    "history",
    "image_grid",
    "learning_rate_finder",
    "loss_curve",
    "loss_surface",
    "model",
    "roc",
    "roofline",
    "scatter_with_line",
    "schedule",
    "stepper",
    "weights",
]
