"""Training of models: epochs over arrays, with validation, callbacks, progress and resuming.

In come a model, the names of a loss, an optimizer and metrics, and data. Out go a history, a model
that has learned, and files from which a training goes on.
"""
