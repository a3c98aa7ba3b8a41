"""ONNX Runtime, for predictions: a graph with the weights in it, optimized as far as it goes.

Of three ways to call it the fastest is taken:

``run``
    Arrays of NumPy go in, and a new one comes out.
``values``
    The same with tensors of its own.
``bound``
    Inputs and the output are bound beforehand (`IOBinding`), so that a call moves nothing.

It has no switch for the instruction set: where all others are held to one, it takes the best there
is, and its setup says so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from sequences import Recurrent
from workloads import Floats

from peers.common import Peer, Task, fastest, not_held, serve

OPSET, FORMAT = 17, 8  # old enough for every runtime of today; nothing newer is needed
GATES = (0, 3, 1, 2)  # i, o, f, c of the LSTM in ONNX, among i, f, g, o
Call = Callable[[Any], Any]


class Graph:
    """Nodes and the arrays that they read, from x to y."""

    def __init__(self) -> None:
        from onnx import helper, numpy_helper

        self.helper, self.numpy_helper = helper, numpy_helper
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, array: Any) -> str:
        """Return the name of an array that is part of the graph."""
        name = f"c{len(self.constants)}"
        array = np.ascontiguousarray(array)
        self.constants.append(self.numpy_helper.from_array(array, name))
        return name

    def node(self, kind: str, *inputs: str, outputs: Sequence[str] = (), **attributes: Any) -> str:
        """Add a node and return the name of its last output."""
        names = list(outputs) or [f"n{len(self.nodes)}"]
        self.nodes.append(self.helper.make_node(kind, list(inputs), names, **attributes))
        return names[-1]

    def model(self, x: Sequence[int], y: Sequence[int]) -> bytes:
        """Return the model as a file holds it, for x and y of these shapes."""
        helper = self.helper
        self.nodes[-1].output[:] = ["y"]
        shapes = [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype("f4")), s)
            for name, s in (("x", x), ("y", y))
        ]
        graph = helper.make_graph(self.nodes, "net", shapes[:1], shapes[1:], self.constants)
        opsets = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=FORMAT)
        content: bytes = model.SerializeToString()
        return content


class OnnxRuntime(Peer):
    """A session for one workload."""

    def __init__(self, task: Task) -> None:
        import onnxruntime

        super().__init__(task)
        if not self.workload.predict:
            raise TypeError(f"{self.workload.name} is trained, and ONNX Runtime only predicts")
        self.inputs = [np.ascontiguousarray(x) for x, _ in task.batches()]
        if isinstance(self.workload, Recurrent):  # its kernel has the steps first
            self.inputs = [np.ascontiguousarray(x.swapaxes(0, 1)) for x in self.inputs]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = task.threads, 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.log_severity_level = 3  # errors
        providers = ["CPUExecutionProvider"]
        self.session = onnxruntime.InferenceSession(self._model(), options, providers=providers)
        self.ways = {
            "run": self._by_arrays(),
            "values": self._by_values(onnxruntime),
            "bound": self._bound(onnxruntime),
        }

        def some(call: Call, rows: Sequence[Any]) -> None:
            for _ in range(20):
                for row in rows:
                    call(row)

        calls = {name: partial(some, *way) for name, way in self.ways.items()}
        self.variant = fastest(calls, task.variant)
        self.setup = {
            "run": "all optimizations, run",
            "values": "all optimizations, run_with_ort_values",
            "bound": "all optimizations, IOBinding",
        }[self.variant]
        self.setup += not_held("its kernels")

    def _model(self) -> bytes:
        graph, layers = Graph(), list(self.task.first_weights())
        name = "x"
        if isinstance(self.workload, Recurrent):
            name = self._lstm(graph, *(a for pair in layers[:2] for a in pair))
            layers = layers[2:]
        for i, (weight, bias) in enumerate(layers):
            if i:
                name = graph.node({"relu": "Relu", "tanh": "Tanh"}[self.workload.hidden], name)
            name = graph.node("Gemm", name, graph.constant(weight), graph.constant(bias))
        return graph.model(self.inputs[0].shape, (self.workload.batch, layers[-1][0].shape[1]))

    def _lstm(self, graph: Graph, w: Floats, b: Floats, u: Floats, _: Floats) -> str:
        """Add an LSTM over x (T, N, C) and return the name of its last state, (N, units)."""
        units, batch = self.workload.units, self.workload.batch

        def ordered(a: Floats) -> Any:
            parts = np.split(a, 4, axis=-1)
            return np.concatenate([parts[i] for i in GATES], axis=-1)

        weights = [ordered(w).T[None], ordered(u).T[None]]
        biases = np.concatenate([ordered(b), np.zeros_like(b)])[None]
        inputs = ["x", *(graph.constant(a) for a in (*weights, biases))]
        h = graph.node("LSTM", *inputs, outputs=("", "h"), hidden_size=units)
        return graph.node("Reshape", h, graph.constant(np.array([batch, units])))

    # ---- the ways to call it ----

    def _by_arrays(self) -> tuple[Call, Sequence[Any]]:
        run, names = self.session.run, ["y"]
        return lambda feed: run(names, feed)[0], [{"x": x} for x in self.inputs]

    def _by_values(self, onnxruntime: Any) -> tuple[Call, Sequence[Any]]:
        run, names = self.session.run_with_ort_values, ["y"]
        value = onnxruntime.OrtValue.ortvalue_from_numpy
        return lambda feed: run(names, feed)[0], [{"x": value(x)} for x in self.inputs]

    def _bound(self, onnxruntime: Any) -> tuple[Call, Sequence[Any]]:
        (shape,) = (output.shape for output in self.session.get_outputs())
        self.output = np.empty(shape, np.float32)
        where, run = ("cpu", 0, np.float32, shape, self.output.ctypes.data), self.session
        bindings = []
        for x in self.inputs:
            binding = run.io_binding()
            binding.bind_ortvalue_input("x", onnxruntime.OrtValue.ortvalue_from_numpy(x))
            binding.bind_output("y", *where)
            bindings.append(binding)
        call, output = run.run_with_iobinding, self.output

        def predict(binding: Any) -> Any:
            call(binding)
            return output

        return predict, bindings

    # ---- what is asked ----

    def predictor(self) -> tuple[Call, Sequence[Any]]:
        return self.ways[self.variant]

    def reset(self) -> None:
        raise TypeError("ONNX Runtime only predicts")

    def train(self, epochs: int) -> None:
        raise TypeError("ONNX Runtime only predicts")

    def weights(self) -> list[tuple[Floats, Floats]]:
        raise TypeError("ONNX Runtime only predicts")


def load() -> tuple[Callable[[Task], Peer], dict[str, str]]:
    """Return what makes the peer, and the versions."""
    import onnx
    import onnxruntime

    versions = {"onnxruntime": onnxruntime.__version__, "onnx": onnx.__version__}
    return OnnxRuntime, versions


if __name__ == "__main__":
    serve(load)
