"""Weights of samples and of classes, in network estimators and perceptrons."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("sklearn")

from networks import quick
from sklearn.datasets import (
    make_classification,
)
from sklearn.utils import compute_sample_weight

from pyframe.estimators import MLPClassifier, NetClassifier

pytestmark = pytest.mark.sklearn


def test_weights_of_samples_and_classes():
    imbalanced = make_classification(600, 6, weights=[0.95], flip_y=0.1, random_state=0)
    plain, balanced = (
        quick(class_weight=w, epochs=20).fit(*imbalanced) for w in (None, "balanced")
    )
    x, y = imbalanced
    assert balanced.predict(x).sum() > 2 * plain.predict(x).sum()
    by_hand = quick(epochs=20).fit(x, y, np.where(y == 1, (y == 0).sum(), (y == 1).sum()) * 1.0)
    assert abs(by_hand.predict(x).mean() - balanced.predict(x).mean()) < 0.05


def test_class_weights_that_could_not_be_kept_are_refused():
    x = np.random.default_rng(0).normal(size=(20, 3))
    with pytest.raises(ValueError, match="one label a sample"):
        NetClassifier(class_weight={0: 2, 1: 1}, epochs=1).fit(x, (x > 0).astype(int))
    with pytest.raises(ValueError, match="needs all labels at once"):
        NetClassifier(class_weight="balanced").partial_fit(x, x[:, 0] > 0, classes=[False, True])


LABELS = {"numbers": [0, 1, 2], "words": ["ant", "bee", "cow"], "negative": [-3, 7, 9]}


@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
@pytest.mark.parametrize(
    "make",
    [
        lambda **given: NetClassifier([], random_state=0, dtype="float64", **given),
        lambda **given: MLPClassifier((4,), random_state=0, **given),
    ],
    ids=["net", "mlp"],
)
@pytest.mark.parametrize("weighted", [[0], [1], [0, 2], [0, 1, 2]])
def test_a_batch_may_lack_a_class_that_has_a_weight(make, labels, weighted):
    """The dict's weights multiply the rows, whichever classes a batch has."""
    x, which = np.random.default_rng(0).normal(size=(12, 3)), np.arange(12) % 3
    classes = np.array(labels)
    factors = np.ones(3)
    factors[weighted] = np.array([2.0, 3.0, 0.5])[weighted]
    by_dict = make(class_weight={labels[i]: factors[i] for i in weighted})
    by_hand = make()
    for present in ([0], [1, 2], [2], [0, 1, 2]):
        rows = np.isin(which, present)
        y = classes[which[rows]]
        by_dict.partial_fit(x[rows], y, classes=classes)
        by_hand.partial_fit(x[rows], y, classes=classes, sample_weight=factors[which[rows]])
    np.testing.assert_array_equal(by_dict.predict_proba(x), by_hand.predict_proba(x))


def test_a_batch_may_lack_a_label_of_several_that_has_a_weight():
    x, y = np.random.default_rng(0).normal(size=(6, 3)), np.array([[0, 1], [0, 0]] * 3)
    # The only class with a weight in the first column comes in no row.
    by_dict = MLPClassifier((4,), random_state=0, class_weight=[{1: 4.0}, {1: 3.0}])
    by_dict.partial_fit(x, y, classes=[0, 1])
    by_hand = MLPClassifier((4,), random_state=0)
    by_hand.partial_fit(x, y, classes=[0, 1], sample_weight=np.where(y[:, 1] == 1, 3.0, 1.0))
    np.testing.assert_array_equal(by_dict.predict_proba(x), by_hand.predict_proba(x))


def test_weights_that_know_only_the_batch_are_noticed(monkeypatch):
    """Planted: nobody says which classes there are."""
    monkeypatch.setattr(
        "pyframe.estimators.net.sample_weights",
        lambda weight, y, classes: compute_sample_weight(weight, y),
    )
    with pytest.raises(ValueError, match="not in class_weight"):
        test_a_batch_may_lack_a_class_that_has_a_weight(NetClassifier, [0, 1, 2], [1])


def test_a_class_weight_for_what_is_no_class_is_still_refused():
    x = np.random.default_rng(0).normal(size=(6, 3))
    for net in (NetClassifier(class_weight={5: 2.0}), MLPClassifier(class_weight={5: 2.0})):
        with pytest.raises(ValueError, match="not in class_weight"):
            net.partial_fit(x, np.arange(6) % 2, classes=[0, 1])
