"""Networks as graphs of nodes: what is to be computed, in which order, and its gradient.

In come arrays and op classes; each node checks shapes and dtypes when it is made. Out go graphs:
nodes in the order of computing, gradients among them, and not a number computed yet.
"""
