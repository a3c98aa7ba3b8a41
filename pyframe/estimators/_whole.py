"""Fits that are seen whole: other threads may predict with an estimator that is being fitted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

Estimator = TypeVar("Estimator")


def twin(estimator: Estimator) -> Estimator:
    """Return an estimator with the attributes that another one has at this moment.

    A prediction reads several of them, which belong to one fit only in a twin. Copying a dict is
    one indivisible step.
    """
    made = object.__new__(type(estimator))
    made.__dict__.update(estimator.__dict__)
    return made


@contextmanager
def fitting(estimator: Estimator) -> Iterator[Estimator]:
    """Lend a twin to fit in place of an estimator, which then gets all that has changed at once.

    If the fit raises an exception, the estimator stays as it was. Until then it predicts what it
    did before, unless the fit goes on with its network: then with the parameters between two steps.
    """
    before = dict(estimator.__dict__)
    worker = twin(estimator)
    yield worker
    changed = {k: v for k, v in worker.__dict__.items() if k not in before or before[k] is not v}
    # `before` keeps what is replaced until all is: freeing it might let another thread run.
    estimator.__dict__.update(changed)
