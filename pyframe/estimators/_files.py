"""Estimators in files: a network, and beside it the parameters that JSON can hold."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from pyframe import checkpoint
from pyframe.checkpoint.schema import list_of, optional, record, table_of, text
from pyframe.errors import ArgumentError
from pyframe.model import Model, load

KEY = "estimator"  # of what a model file keeps in its `extra`


def _plain(value: Any, what: str = "") -> Any:
    """Return a parameter that JSON can hold, or raise `ArgumentError`: a rule."""
    if isinstance(value, list | tuple):
        return [_plain(item, what) for item in value]
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    raise ArgumentError(f"{what} is {value!r:.80}; it must be a number, a text or a list of them")


FILE = record(parameters=table_of(_plain), features=optional(list_of(text)))


def save(estimator: Any, model: Model, path: str | os.PathLike[str]) -> None:
    """Write a fitted estimator's network to a file, with the parameters that JSON can hold."""
    parameters = {}
    for name, value in estimator.get_params(deep=False).items():
        try:
            parameters[name] = _plain(value)
        except ArgumentError:  # an object: the constructor's default takes its place
            continue
    features = getattr(estimator, "feature_names_in_", None)
    model.extra = {
        **model.extra,
        KEY: {
            "parameters": parameters,
            "features": None if features is None else [str(name) for name in features],
        },
    }
    model.save(path)


def read(cls: Any, path: str | os.PathLike[str], given: Mapping[str, Any]) -> tuple[Any, Model]:
    """Return an estimator with the parameters of a file and those given, and the file's model."""
    model = load(path)
    with checkpoint.building(os.fspath(path)):
        kept = FILE(model.extra.get(KEY, {"parameters": {}, "features": None}), KEY)
        known = {**cls().get_params(deep=False)}
        parameters = {k: v for k, v in kept["parameters"].items() if k in known}
    made = cls(**{**parameters, **given})
    if kept["features"] is not None:
        made.feature_names_in_ = np.array(kept["features"], object)
    return made, model
