"""Estimators in files: a network, and beside it the parameters of its estimator."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from sklearn.utils.validation import check_is_fitted

from pyframe import checkpoint
from pyframe.checkpoint.arguments import pack, unpack
from pyframe.checkpoint.schema import list_of, optional, record, table, text
from pyframe.model import Model, load

KEY = "estimator"  # of what a model file keeps in its `extra`
FILE = record(parameters=table, features=optional(list_of(text)))


class Filed:
    """An estimator that is saved to files and loaded from them.

    `_kind` is that of its parameters: those of another kind mean something else.
    """

    _kind = ""

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fitted network, with its classes, to a file that `load` and `pf.load` read.

        The parameters are in it too, but for functions, callbacks and classes that are registered
        nowhere: a fit after loading asks for these, by name.

        Parameters
        ----------
        path : path-like

        Raises
        ------
        CheckpointError
            If the network has a part, such as a function, of which a file cannot hold the code.
        OSError
            If the file cannot be written.
        """
        check_is_fitted(self)
        model = self._as_model()
        features = getattr(self, "feature_names_in_", None)
        names = None if features is None else [str(name) for name in features]
        parameters = pack(self.get_params(deep=False))  # type: ignore[attr-defined]
        notes = {"kind": self._kind, "parameters": parameters, "features": names, **self._notes()}
        model.extra = {**model.extra, KEY: notes}
        model.save(path)

    @classmethod
    def load(cls, path: str | os.PathLike[str], **parameters: Any) -> Self:
        """Return a fitted estimator with the network of a file.

        Parameters
        ----------
        path : path-like
        **parameters
            Of the estimator, in place of those in the file: what the next fit goes by.

        Raises
        ------
        CheckpointError, OSError
            If the file is damaged or cannot be read.
        ValueError
            If it is not of an estimator of this kind.
        """
        model, source = load(path), os.fspath(path)
        notes = model.extra.get(KEY)
        with checkpoint.building(source):
            given = {} if notes is None else unpack(FILE(notes, KEY)["parameters"])
            features = None if notes is None else notes["features"]
        if notes is not None and notes.get("kind", cls._kind) != cls._kind:
            given, notes = {}, None
        known = cls().get_params(deep=False)  # type: ignore[attr-defined]
        held = {name: value for name, value in given.items() if name in known}
        net = cls(**{**held, **parameters})
        if features is not None:
            net.feature_names_in_ = np.array(features, object)  # type: ignore[attr-defined]
        with checkpoint.building(source):
            net._take(model, notes, source)
        return net

    def _as_model(self) -> Model:
        """Return the network to save."""
        raise NotImplementedError

    def _notes(self) -> dict[str, Any]:
        """Return what else the file keeps, as JSON has it."""
        return {}

    def _take(self, model: Model, notes: Mapping[str, Any] | None, source: str) -> None:
        """Have the network of a file, without notes if no estimator of this kind has written it."""
        raise NotImplementedError
