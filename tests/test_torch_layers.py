"""Layers against PyTorch: outputs, and gradients of inputs and parameters, on random shapes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

import pyframe as pf
from pyframe.plugins.registry import registries

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
nn = torch.nn.functional

pytestmark = pytest.mark.once  # the kernels by themselves are compared with their references

CASES = range(50)
# Their layer is the identity in a prediction, and what they draw in training is not PyTorch's.
RANDOM = {"dropout", "spatial_dropout", "alpha_dropout", "gaussian_noise", "gaussian_dropout"}


def compare(
    layer: Any, arrays: Sequence[Any], theirs: Callable[..., Any], *, training: bool = True
) -> None:
    """Compare a layer with a function of tensors, its inputs and then its parameters."""
    rng = np.random.default_rng(7)
    feed, nodes = {}, []
    for i, array in enumerate(arrays):
        if array.dtype.kind == "i":
            nodes.append(pf.Placeholder(f"x{i}", shape=array.shape, dtype="int64"))
            feed[nodes[-1]] = array
        else:
            nodes.append(pf.Parameter(array, name=f"x{i}", dtype="float64"))
    y = layer(*nodes)
    for p in layer.parameters:
        p.value = rng.normal(size=p.shape)
    leaves = [n for n in nodes if isinstance(n, pf.Parameter)] + layer.parameters
    factors = rng.normal(size=y.shape)
    plan = pf.compile(pf.Sum(y * factors), inspect=True)
    _, gradients = plan.loss_and_gradients(feed, training=training)
    got = plan.value(y)

    tensors = [
        torch.tensor(n.value, requires_grad=True)
        if isinstance(n, pf.Parameter)
        else torch.tensor(feed[n])
        for n in [*nodes, *layer.parameters]
    ]
    wanted = theirs(*tensors)
    (wanted * torch.tensor(factors)).sum().backward()
    np.testing.assert_allclose(got, wanted.detach().numpy(), rtol=1e-9, atol=1e-10)
    for leaf, tensor in zip(leaves, [t for t in tensors if t.is_floating_point()], strict=True):
        np.testing.assert_allclose(
            gradients[leaf], tensor.grad.numpy(), rtol=1e-9, atol=1e-10, err_msg=leaf.name
        )


def first(x: Any) -> Any:
    """Return a tensor with its channels where PyTorch has them."""
    return x.movedim(-1, 1)


def last(x: Any) -> Any:
    return x.movedim(1, -1)


def maxout(x: Any, w: Any, b: Any, pieces: int) -> Any:
    y = x @ w + b
    return y.reshape(*y.shape[:-1], -1, pieces).max(-1).values


def of_norm(kind: Any) -> Any:
    return lambda x, *p: last(kind(first(x), *p))


def dense(rng: Any, s: tuple[int, ...], c: int) -> Any:
    units, activation = int(rng.integers(1, 6)), str(rng.choice(["relu", "tanh", "sigmoid"]))
    act = getattr(torch, activation)
    return pf.layers.Dense(units, activation), [s], lambda x, w, b: act(x @ w + b)


def permute(rng: Any, s: tuple[int, ...], c: int) -> Any:
    axes = tuple(int(a) for a in rng.permutation(range(1, len(s))))
    return pf.layers.Permute(axes), [s], lambda x: x.permute(0, *axes)


def group_norm(rng: Any, s: tuple[int, ...], c: int) -> Any:
    groups = int(rng.choice([g for g in range(1, c + 1) if c % g == 0]))
    affine = bool(rng.integers(2))
    layer = pf.layers.GroupNorm(groups, epsilon=1e-2, affine=affine)
    # PyTorch refuses a single number.
    return (
        layer,
        [(s[0] + 1, *s[1:])],
        of_norm(lambda x, *p: nn.group_norm(x, groups, *p, eps=1e-2)),
    )


def residual(rng: Any, s: tuple[int, ...], c: int) -> Any:
    layers = [pf.layers.Dense(3, "tanh"), pf.layers.Dense(c)]
    return (
        pf.layers.Residual(layers),
        [s],
        lambda x, w, b, v, d: x + torch.tanh(x @ w + b) @ v + d,
    )


def bilinear(rng: Any, s: tuple[int, ...], c: int) -> Any:
    other = int(rng.integers(1, 5))
    return (
        pf.layers.Bilinear(int(rng.integers(1, 5))),
        [s, (*s[:-1], other)],
        lambda x, z, w, b: nn.bilinear(x, z, w.permute(2, 0, 1), b),
    )


def weight_norm(rng: Any, s: tuple[int, ...], c: int) -> Any:
    def theirs(x: Any, scale: Any, v: Any, b: Any) -> Any:
        return nn.linear(x, torch._weight_norm(v.T, scale[:, None], 0), b)

    return pf.layers.WeightNorm(pf.layers.Dense(4)), [s], theirs


def spectral_norm(rng: Any, s: tuple[int, ...], c: int) -> Any:
    layer = pf.layers.SpectralNorm(pf.layers.Dense(4))
    unit = torch.nn.functional.normalize

    def theirs(x: Any, w: Any, b: Any) -> Any:
        """Return what `torch.nn.utils.spectral_norm` has, with its matrix (out, in)."""
        u, matrix = torch.tensor(layer.states[0].value)[:, 0], w.detach().T
        v = unit(matrix.T @ u, dim=0)
        u = unit(matrix @ v, dim=0)
        return nn.linear(x, w.T / torch.dot(u, w.T @ v), b)

    return layer, [s], theirs


def batch_norm(rng: Any, s: tuple[int, ...], c: int) -> Any:
    layer = pf.layers.BatchNorm(epsilon=1e-2)
    # The variance of a single row is 0, which PyTorch refuses.
    shape = (max(s[0], 2), *s[1:])
    return (
        layer,
        [shape],
        of_norm(lambda x, w, b: nn.batch_norm(x, None, None, w, b, training=True, eps=1e-2)),
    )


def instance_norm(rng: Any, s: tuple[int, ...], c: int) -> Any:
    # Of a single volume PyTorch 2.13 has gradients that its own differences do not confirm.
    shape = (s[0] + 1, int(rng.integers(2, 5)), *s[1:])
    return (
        pf.layers.InstanceNorm(epsilon=1e-2, affine=True),
        [shape],
        of_norm(lambda x, w, b: nn.instance_norm(x, weight=w, bias=b, eps=1e-2)),
    )


# For each layer: it, the shapes of its inputs, and the function of tensors that it is. Given are a
# generator, a shape (n, ..., c) of 2 to 4 axes, and c.
LAYERS: dict[str, Callable[[Any, tuple[int, ...], int], Any]] = {
    "dense": dense,
    "activation": lambda rng, s, c: (pf.layers.Activation("gelu"), [s], nn.gelu),
    "lambda": lambda rng, s, c: (pf.layers.Lambda("square"), [s], torch.square),
    "flatten": lambda rng, s, c: (pf.layers.Flatten(), [s], lambda x: x.flatten(1)),
    "prelu": lambda rng, s, c: (pf.layers.PReLU(), [s], of_norm(nn.prelu)),
    "maxout": lambda rng, s, c: (
        pf.layers.Maxout(3, pieces=2),
        [s],
        lambda x, w, b: maxout(x, w, b, 2),
    ),
    "bilinear": bilinear,
    "residual": residual,
    "weight_norm": weight_norm,
    "spectral_norm": spectral_norm,
    "add": lambda rng, s, c: (pf.layers.Add(), [s, s, s], lambda a, b, d: a + b + d),
    "subtract": lambda rng, s, c: (pf.layers.Subtract(), [s, s], torch.sub),
    "multiply": lambda rng, s, c: (pf.layers.Multiply(), [s, s], torch.mul),
    "average": lambda rng, s, c: (
        pf.layers.Average(),
        [s, s, s],
        lambda *x: torch.stack(x).mean(0),
    ),
    "maximum": lambda rng, s, c: (pf.layers.Maximum(), [s, s], torch.maximum),
    "dot": lambda rng, s, c: (pf.layers.Dot(), [s, s], lambda a, b: (a * b).sum(-1)),
    "concatenate": lambda rng, s, c: (
        pf.layers.Concatenate(),
        [s, (*s[:-1], 2)],
        lambda *x: torch.cat(x, -1),
    ),
    "reshape": lambda rng, s, c: (
        pf.layers.Reshape((-1, c)),
        [s],
        lambda x: x.reshape(len(x), -1, c),
    ),
    "permute": permute,
    "repeat_vector": lambda rng, s, c: (
        pf.layers.RepeatVector(3),
        [(s[0], c)],
        lambda x: x[:, None].repeat(1, 3, 1),
    ),
    "batch_norm": batch_norm,
    "layer_norm": lambda rng, s, c: (
        pf.layers.LayerNorm(1e-2),
        [s],
        lambda x, w, b: nn.layer_norm(x, (c,), w, b, eps=1e-2),
    ),
    "rms_norm": lambda rng, s, c: (
        pf.layers.RMSNorm(1e-2),
        [s],
        lambda x, w: nn.rms_norm(x, (c,), w, eps=1e-2),
    ),
    "group_norm": group_norm,
    "instance_norm": instance_norm,
}


def drawn(seed: int) -> Any:
    rng = np.random.default_rng(seed)
    shape = tuple(int(n) for n in rng.integers(1, 7, int(rng.integers(2, 5))))
    return rng, shape, shape[-1]


def test_every_layer_of_the_core_is_compared() -> None:
    assert {*LAYERS, *RANDOM, "embedding"} == set(registries["layers"].built_ins())


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_is_pytorchs(name: str) -> None:
    for seed in CASES:
        rng, shape, channels = drawn(seed)
        layer, shapes, theirs = LAYERS[name](rng, shape, channels)
        compare(layer, [rng.normal(size=s) for s in shapes], theirs)


@pytest.mark.parametrize("padded", [False, True])
def test_an_embedding_is_pytorchs(padded: bool) -> None:
    for seed in CASES:
        rng, shape, _ = drawn(seed)
        rows = int(rng.integers(1, 9))
        pad = int(rng.integers(rows)) if padded else None
        layer = pf.layers.Embedding(rows, 3, padding_index=pad, dtype="float64")
        compare(
            layer,
            [rng.integers(0, rows, shape)],
            lambda i, w, pad=pad: nn.embedding(i, w, padding_idx=pad),
        )


@pytest.mark.parametrize("frozen", [False, True])
def test_batch_norm_outside_of_training_and_frozen(frozen: bool) -> None:
    for seed in CASES:
        rng, shape, channels = drawn(seed)
        layer = pf.layers.BatchNorm(epsilon=1e-2)
        probe = pf.Placeholder("probe", shape=(None, *shape[1:]), dtype="float64")
        layer(probe)
        mean, variance = rng.normal(size=channels), rng.uniform(0.5, 2, channels)
        for state, value in zip(layer.states, (mean, variance), strict=True):
            state.value, state.frozen = value, frozen
        compare(
            layer,
            [rng.normal(size=shape)],
            of_norm(
                lambda x, w, b, m=mean, v=variance: nn.batch_norm(
                    x, torch.tensor(m), torch.tensor(v), w, b, training=False, eps=1e-2
                )
            ),
            training=frozen,
        )


def test_the_averages_of_batch_norm_are_pytorchs() -> None:
    for seed in CASES:
        rng, shape, channels = drawn(seed)
        shape = (shape[0] + 1, *shape[1:])
        layer = pf.layers.BatchNorm(momentum=0.7)
        x = pf.Placeholder("x", shape=(None, *shape[1:]), dtype="float64")
        plan = pf.compile(pf.Sum(layer(x)), optimizer=pf.optimizers.SGD(0.0))
        mean, variance = torch.zeros(channels).double(), torch.ones(channels).double()
        for _ in range(3):
            batch = rng.normal(2.0, 3.0, size=shape)
            plan.step({x: batch})
            nn.batch_norm(first(torch.tensor(batch)), mean, variance, training=True, momentum=0.3)
        for state, tensor in zip(layer.states, (mean, variance), strict=True):
            np.testing.assert_allclose(state.value, tensor.numpy(), rtol=1e-9, atol=1e-12)


ACTIVATIONS: dict[str, Any] = {
    "relu": nn.relu,
    "leaky_relu": nn.leaky_relu,
    "relu6": nn.relu6,
    "elu": nn.elu,
    "selu": nn.selu,
    "celu": nn.celu,
    "gelu": nn.gelu,
    "silu": nn.silu,
    "mish": nn.mish,
    "sigmoid": torch.sigmoid,
    "log_sigmoid": nn.logsigmoid,
    "hard_sigmoid": lambda x: nn.relu6(x + 3) / 6,  # whose own gradient is 1/6 in float32
    "hard_swish": nn.hardswish,
    "hard_tanh": nn.hardtanh,
    "tanh": torch.tanh,
    "softplus": nn.softplus,
    "softsign": nn.softsign,
    "softmax": lambda x: torch.softmax(x, -1),
    "log_softmax": lambda x: torch.log_softmax(x, -1),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_activation_is_pytorchs(name: str) -> None:
    for seed in CASES:
        rng, shape, _ = drawn(seed)
        x = 3 * rng.normal(size=shape)
        compare(pf.layers.Activation(name), [x], ACTIVATIONS[name])
