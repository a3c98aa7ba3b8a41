"""The same network, data order and weights here and in PyTorch: the same losses."""

import numpy as np
import pytest

import pyframe as pf

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
sklearn_datasets = pytest.importorskip("sklearn.datasets")

STEPS, BATCH = 100, 64


def weights(dtype):
    rng = np.random.default_rng(0)
    sizes = [(64, 128), (128, 64), (64, 10)]
    return [(rng.normal(size=s) / np.sqrt(s[0])).astype(dtype) for s in sizes], [
        np.zeros(s[1], dtype) for s in sizes
    ]


def batches(dtype):
    digits = sklearn_datasets.load_digits()
    rows = np.random.default_rng(1).permutation(len(digits.data))
    x, y = (digits.data[rows] / 16).astype(dtype), digits.target[rows].astype(np.int64)
    for i in range(STEPS):
        at = (i * BATCH) % (len(x) - BATCH)
        yield x[at : at + BATCH], y[at : at + BATCH]


def our_losses(optimizer, dtype):
    x = pf.Placeholder("x", shape=(None, 64), dtype=dtype)
    y = pf.Placeholder("y", shape=(None,), dtype="int64")
    node = x
    for i, (w, b) in enumerate(zip(*weights(dtype), strict=True)):
        node = pf.Linear(
            node,
            pf.Parameter(w, name=f"w{i}", dtype=dtype),
            pf.Parameter(b, name=f"b{i}", dtype=dtype),
        )
        if i < 2:
            node = pf.Relu(node)
    plan = pf.compile(pf.CrossEntropy(y, node), optimizer)
    return [plan.step({x: xb, y: yb}) for xb, yb in batches(dtype)]


def their_losses(make_optimizer, dtype):
    torch.set_num_threads(1)
    layers = []
    for i, (w, b) in enumerate(zip(*weights(dtype), strict=True)):
        linear = torch.nn.Linear(*w.shape, dtype=getattr(torch, dtype))
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(w.T.copy()))
            linear.bias.copy_(torch.from_numpy(b))
        layers += [linear, torch.nn.ReLU()] if i < 2 else [linear]
    net = torch.nn.Sequential(*layers)
    optimizer = make_optimizer(net.parameters())
    losses = []
    for xb, yb in batches(dtype):
        loss = torch.nn.functional.cross_entropy(net(torch.from_numpy(xb)), torch.from_numpy(yb))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize(("dtype", "bound"), [("float32", 1e-5), ("float64", 1e-12)])
@pytest.mark.parametrize("kind", ["sgd", "adam"])
def test_losses_agree_over_100_steps(kind, dtype, bound):
    if kind == "sgd":
        ours = our_losses(pf.optimizers.SGD(0.05, momentum=0.9), dtype)
        theirs = their_losses(lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9), dtype)
    else:
        ours = our_losses(pf.optimizers.Adam(1e-3), dtype)
        theirs = their_losses(lambda p: torch.optim.Adam(p, lr=1e-3), dtype)
    worst = np.max(np.abs(np.array(ours) - theirs) / np.array(theirs))
    print(f"{kind} {dtype}: largest relative difference of the loss {worst:.2e}")
    assert worst < bound
    assert ours[-1] < 0.6 * ours[0], "and it has learnt something"
