"""Callbacks that report a training to TensorBoard and MLflow."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from pyframe.callbacks.base import Logs, Watcher, file_name
from pyframe.errors import ValueReusedError, check_flag, check_integer, require_extra
from pyframe.training.history import History


def is_now(trainer: Any, epoch: int) -> bool:
    """Return whether an epoch has just ended."""
    return bool(epoch == trainer.epochs_done - 1)


def numbers_of(trainer: Any, epoch: int, logs: Logs) -> dict[str, float]:
    """Return the numbers of some logs, and the learning rate, if there is one and it is known."""
    numbers = {name: float(v) for name, v in logs.items() if np.ndim(v) == 0}
    optimizer = trainer.optimizer
    if is_now(trainer, epoch) and optimizer.needs_gradients:
        rate = optimizer.learning_rate
        step = np.array([trainer.plan.step_count])
        numbers["learning_rate"] = float(rate(step)[0] if callable(rate) else rate)
    return numbers


class TensorBoard(Watcher):
    """Write what TensorBoard shows: ``tensorboard --logdir FOLDER``.

    Losses, metrics and the learning rate after each epoch; if asked for, histograms of parameters
    and their gradients, the graph of the model, and the first images that it is trained on. A fit
    that is resumed goes on in the same curves. Needs the extra ``tensorboard``.

    Parameters
    ----------
    folder : path-like, default "runs"
        One for each run that is to have curves of its own: "runs/1", "runs/2".
    histograms : int, default 0
        After every so many epochs; 0 for none. The gradients are those of the last batch.
    graph : bool, default True
    images : int, default 0
        How many of the first rows, of inputs (n, height, width, channels) with 1, 3 or 4 channels.
    steps : int, default 0
        Write the loss of every so many batches too. That stops the loop in C after each batch.

    Attributes
    ----------
    writer : tensorboardX.SummaryWriter or None
        While a fit is under way: for what else you want to have shown.

    Raises
    ------
    MissingExtraError
        From the fit, if tensorboardX is not installed.
    OSError
        From the beginning of the fit, if the folder cannot be written.

    Examples
    --------
    >>> import pyframe as pf
    >>> board = pf.callbacks.TensorBoard("runs/first", histograms=1)
    """

    aliases: ClassVar[tuple[str, ...]] = ("tensor_board_logger", "summary_writer")
    once: ClassVar[bool] = True
    _attributes: ClassVar[dict[str, str]] = dict.fromkeys(
        ["folder", "histograms", "graph", "images", "steps", "writer"], ""
    )
    _checks: ClassVar[dict[str, Callable[[Any], Any]]] = {
        "folder": file_name,
        "histograms": lambda given: check_integer("histograms", given, at_least=0),
        "graph": lambda given: check_flag("graph", given),
        "images": lambda given: check_integer("images", given, at_least=0),
        "steps": lambda given: check_integer("steps", given, at_least=0),
    }

    def __init__(
        self,
        folder: str | os.PathLike[str] = "runs",
        histograms: int = 0,
        graph: bool = True,
        images: int = 0,
        steps: int = 0,
    ) -> None:
        self.folder, self.histograms, self.graph = folder, histograms, graph
        self.images, self.steps = images, steps
        self.writer: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "writer": None}  # a copy is in no fit

    def listens_to(self, event: str) -> bool:
        """Return whether it writes anything at an event."""
        return super().listens_to(event) and (event != "on_batch_end" or self.steps > 0)

    def on_fit_start(self, trainer: Any) -> None:
        super().on_fit_start(trainer)
        board = require_extra("tensorboardX", "tensorboard")
        os.makedirs(self.folder, exist_ok=True)
        self._is_empty = not os.listdir(self.folder)
        begun = trainer.epochs_done  # what a fit from there has written later is not shown
        self.writer = board.SummaryWriter(self.folder, purge_step=begun, write_to_disk=True)
        if self.graph:
            self._write_graph(trainer.model)
        for placeholder, rows in trainer.sample(self.images).items() if self.images else ():
            if rows.ndim == 4 and rows.shape[-1] in (1, 3, 4):
                span = max(float(np.ptp(rows)), 1e-12)
                shown = np.ascontiguousarray((rows - rows.min()) / span, np.float32)
                self.writer.add_images(placeholder.label(), shown, begun, dataformats="NHWC")

    def _write_graph(self, model: Any) -> None:
        from tensorboardX.proto import (  # type: ignore[import-not-found, import-untyped, unused-ignore]
            event_pb2,
            graph_pb2,
        )

        graph = graph_pb2.GraphDef()
        for node, name in model.graph.names.items():
            sources = [model.graph.names[s.node] for s in node.inputs if s is not None]
            graph.node.add(name=name, op=type(node).__name__, input=sources)
        event = event_pb2.Event(graph_def=graph.SerializeToString())
        self.writer.file_writer.add_event(event)

    def on_batch_end(self, trainer: Any, step: int, logs: Logs) -> None:
        if step % self.steps == 0:
            self.writer.add_scalar("batch/loss", logs["loss"], step)

    def report(self, trainer: Any, epoch: int, logs: Logs) -> None:
        """Write the numbers and histograms of an epoch."""
        for name, value in numbers_of(trainer, epoch, logs).items():
            self.writer.add_scalar(name, value, epoch)
        if is_now(trainer, epoch) and self.histograms and (epoch + 1) % self.histograms == 0:
            for name, value in _weights_and_gradients(trainer):
                if np.isfinite(value).all():  # a histogram has no place for the others
                    self.writer.add_histogram(name, value, epoch)
        self.writer.flush()

    def restore_training_state(self, trainer: Any, state: dict[str, Any]) -> None:
        if not self._is_empty:  # otherwise what it had is gone
            super().restore_training_state(trainer, state)

    def close(self) -> None:
        """Close the file."""
        if self.writer is not None:
            writer, self.writer = self.writer, None
            writer.close()


def _weights_and_gradients(trainer: Any) -> Any:
    """Yield names and arrays of all parameters, and of the gradients that the last step kept."""
    for parameter in trainer.model.parameters:
        yield f"weights/{parameter.label()}", parameter.value
        if parameter.trainable and trainer.optimizer.needs_gradients:
            try:
                yield f"gradients/{parameter.label()}", trainer.plan.gradient(parameter)
            except ValueReusedError:  # a table of which single rows were used
                continue


class MLflowLogger(Watcher):
    """Log a training as a run of MLflow: arguments, the numbers of each epoch, and the model.

    A run that is active already is used, and left open; otherwise one is begun for each fit. Needs
    the extra ``mlflow``.

    Parameters
    ----------
    run_name : str, optional
    experiment : str, optional
    tracking_uri : str, optional
        Where MLflow keeps its runs; default: what MLflow is set to.
    log_model : bool, default True
        Whether the file of the model, ``model.pyframe``, becomes an artifact at the end.

    Raises
    ------
    MissingExtraError
        From the fit, if mlflow is not installed.

    Examples
    --------
    >>> import pyframe as pf
    >>> log = pf.callbacks.MLflowLogger(experiment="boston", log_model=False)
    """

    aliases: ClassVar[tuple[str, ...]] = ("mlflow", "mlflow_callback")
    once: ClassVar[bool] = True
    _attributes: ClassVar[dict[str, str]] = dict.fromkeys(
        ["run_name", "experiment", "tracking_uri", "log_model"], ""
    )

    def __init__(
        self,
        run_name: str | None = None,
        experiment: str | None = None,
        tracking_uri: str | None = None,
        log_model: bool = True,
    ) -> None:
        self.run_name, self.experiment, self.tracking_uri = run_name, experiment, tracking_uri
        self.log_model = log_model
        self._own_run = False

    def on_fit_start(self, trainer: Any) -> None:
        super().on_fit_start(trainer)
        mlflow = require_extra("mlflow", "mlflow")
        self._own_run, self._run_id = False, ""
        if self.tracking_uri is not None:
            mlflow.set_tracking_uri(self.tracking_uri)
        if self.experiment is not None:
            mlflow.set_experiment(self.experiment)
        if mlflow.active_run() is None:
            mlflow.start_run(run_name=self.run_name)
            self._own_run = True
        self._run_id = mlflow.active_run().info.run_id
        optimizer = trainer.optimizer
        rate = {"learning_rate": optimizer.learning_rate} if optimizer.needs_gradients else {}
        options = {"optimizer": optimizer.name, **rate, **optimizer.options}
        mlflow.log_params({k: v for k, v in options.items() if v is not None})

    def report(self, trainer: Any, epoch: int, logs: Logs) -> None:
        """Log the numbers of an epoch."""
        mlflow = require_extra("mlflow", "mlflow")
        mlflow.log_metrics(numbers_of(trainer, epoch, logs), step=epoch)

    def on_fit_end(self, trainer: Any, history: History) -> None:
        if self.log_model:
            import tempfile

            with tempfile.TemporaryDirectory() as folder:
                path = os.path.join(folder, "model.pyframe")
                trainer.model.save(path)
                require_extra("mlflow", "mlflow").log_artifact(path)
        self._end("FINISHED")

    def _end(self, status: str) -> None:
        if self._own_run:
            self._own_run = False
            require_extra("mlflow", "mlflow").end_run(status)

    def close(self) -> None:
        """End the run of a fit that an exception has ended."""
        self._end("FAILED")

    def training_state(self, trainer: Any) -> dict[str, Any]:
        return {**super().training_state(trainer), "run_id": self._run_id}

    def restore_training_state(self, trainer: Any, state: dict[str, Any]) -> None:
        then = str(state["run_id"])
        if self._own_run and then != self._run_id:  # go on with the run of then
            mlflow = require_extra("mlflow", "mlflow")
            mlflow.end_run()
            mlflow.delete_run(self._run_id)
            self._run_id = then
            mlflow.start_run(run_id=then)
        if then == self._run_id:
            super().restore_training_state(trainer, state)
