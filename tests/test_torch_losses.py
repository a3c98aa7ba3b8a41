"""Losses and their gradients against PyTorch's of the same formula."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest

import pyframe as pf

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
nn = torch.nn.functional

CASES = range(50)


def compare(ours: Any, theirs: Any, y: Any, x: Any) -> None:
    """Compare the loss and its gradient by the prediction, in float64."""
    target = pf.Placeholder("y", shape=y.shape, dtype=y.dtype.name)
    prediction = pf.Parameter(x, name="x", dtype="float64")
    got, gradients = pf.compile(ours(target, prediction)).loss_and_gradients({target: y})
    leaf = torch.tensor(x, requires_grad=True)
    wanted = theirs(torch.tensor(y), leaf)
    wanted.backward()
    np.testing.assert_allclose(got, wanted.item(), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(gradients[prediction], leaf.grad.numpy(), rtol=1e-9, atol=1e-12)


def drawn(seed: int) -> Any:
    rng = np.random.default_rng(seed)
    n, c = int(rng.integers(1, 20)), int(rng.integers(2, 9))
    return rng, rng.normal(size=(n, c)), c


CROSS_ENTROPIES = {
    "plain": {},
    "smoothed": {"label_smoothing": 0.2},
    "weighted": {"class_weight": True},
    "ignored": {"ignore_index": -100},
    "all": {"label_smoothing": 0.1, "class_weight": True, "ignore_index": -100},
}


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("options", CROSS_ENTROPIES.values(), ids=CROSS_ENTROPIES)
def test_cross_entropy(options: dict[str, Any], reduction: str) -> None:
    for seed in CASES:
        rng, x, c = drawn(seed)
        y = rng.integers(0, c, len(x))
        given, theirs = dict(options), {"label_smoothing": options.get("label_smoothing", 0.0)}
        if "ignore_index" in given:
            y[rng.uniform(size=len(x)) < 0.3] = -100
            y[0] = 0
        if "class_weight" in given:
            given["class_weight"] = rng.uniform(0.5, 3, c)
            theirs["weight"] = torch.tensor(given["class_weight"])
        compare(
            partial(pf.CrossEntropy, reduction=reduction, **given),
            lambda y, x, theirs=theirs: nn.cross_entropy(x, y, reduction=reduction, **theirs),
            y,
            x,
        )


@pytest.mark.parametrize(
    "name", ["soft", "kl", "pos_weight", "poisson", "rate", "gaussian", "huber"]
)
def test_others(name: str) -> None:
    for seed in CASES:
        rng, x, c = drawn(seed)
        shares = rng.dirichlet(np.ones(c), len(x))
        if name == "soft":
            compare(pf.SoftCrossEntropy, lambda y, x: nn.cross_entropy(x, y), shares, x)
        elif name == "kl":
            compare(
                pf.KlDivergence,
                lambda y, x: nn.kl_div(nn.log_softmax(x, -1), y, reduction="batchmean"),
                shares,
                x,
            )
        elif name == "pos_weight":
            weight = rng.uniform(0.5, 4, c)
            compare(
                partial(pf.WeightedBinaryCrossEntropy, pos_weight=weight),
                lambda y, x, w=weight: nn.binary_cross_entropy_with_logits(
                    x, y, pos_weight=torch.tensor(w)
                ),
                shares,
                x,
            )
        elif name == "poisson":
            counts = rng.poisson(2.0, x.shape).astype(float)
            compare(pf.PoissonLoss, lambda y, x: nn.poisson_nll_loss(x, y), counts, x)
        elif name == "rate":
            counts, rate = rng.poisson(2.0, x.shape).astype(float), np.exp(x)
            compare(
                partial(pf.PoissonLoss, log_input=False),
                lambda y, x: nn.poisson_nll_loss(x, y, log_input=False, eps=1e-8),
                counts,
                rate,
            )
        elif name == "gaussian":
            both = np.concatenate([x, 0.3 * x], 1)
            compare(
                pf.GaussianNll,
                lambda y, x, c=c: nn.gaussian_nll_loss(x[:, :c], y, x[:, c:].exp()),
                rng.normal(size=x.shape),
                both,
            )
        else:
            compare(pf.HuberLoss, lambda y, x: nn.smooth_l1_loss(x, y), rng.normal(size=x.shape), x)


def test_triplet() -> None:
    for seed in CASES:
        rng, a, _ = drawn(seed)
        p, n = (a + rng.normal(size=a.shape) for _ in range(2))
        nodes = [pf.Parameter(v, name=f"v{i}", dtype="float64") for i, v in enumerate((a, p, n))]
        got, gradients = pf.compile(pf.TripletLoss(*nodes)).loss_and_gradients({})
        leaves = [torch.tensor(v, requires_grad=True) for v in (a, p, n)]
        wanted = nn.triplet_margin_loss(*leaves, eps=0)
        wanted.backward()
        np.testing.assert_allclose(got, wanted.item(), rtol=1e-9)
        for node, leaf in zip(nodes, leaves, strict=True):
            np.testing.assert_allclose(gradients[node], leaf.grad.numpy(), rtol=1e-9, atol=1e-12)
