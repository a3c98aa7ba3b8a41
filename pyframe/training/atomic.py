"""Atomic fits: other threads may predict with an estimator while it is fitted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

from pyframe.errors import raise_if_signalled

Estimator = TypeVar("Estimator")


def twin(estimator: Estimator) -> Estimator:
    """Return an estimator with the present attributes of another one.

    A prediction reads several attributes; only in a twin are they certain to be of one fit. Copying
    a dict is atomic.
    """
    made = object.__new__(type(estimator))
    made.__dict__.update(estimator.__dict__)
    return made


@contextmanager
def fitting(estimator: Estimator) -> Iterator[Estimator]:
    """Provide a twin to fit in place of an estimator, which then gets all changes at once.

    If the fit raises an exception, the estimator stays as it was, and a note says which parameters
    it was of: a search has many fits, and on other machines. Meanwhile the estimator predicts as
    before, unless the fit continues to train its network: then with the parameters between two
    steps.
    """
    before = dict(estimator.__dict__)
    worker = twin(estimator)
    try:
        yield worker
    except Exception as error:
        raise_if_signalled(error)
        error.add_note(f"in the fit of {estimator!r}")
        raise
    changed = {k: v for k, v in worker.__dict__.items() if k not in before or before[k] is not v}
    # `before` keeps what is replaced until all is: freeing it might let another thread run.
    estimator.__dict__.update(changed)
