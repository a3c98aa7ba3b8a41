"""Callbacks that write the numbers of each epoch into a text file."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from pyframe.callbacks.base import Logs, Watcher, file_name
from pyframe.errors import ArgumentError, check_flag, check_integer


class FileLogger(Watcher):
    """The base of those that append lines to a file: it begins anew, or goes on, with a fit.

    A fit that is resumed goes on behind the line of the last epoch in its file, and drops those
    that came later; of epochs that are not there, the file is gone say, the lines come first.
    """

    once: ClassVar[bool] = True
    _attributes: ClassVar[dict[str, str]] = {"path": "", "append": ""}
    _checks: ClassVar[dict[str, Callable[[Any], Any]]] = {
        "path": file_name,
        "append": lambda given: check_flag("append", given),
    }

    def __init__(self, path: str | os.PathLike[str], append: bool = False) -> None:
        self.path, self.append = path, append
        self._file: Any = None
        self._size = 0

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_file": None}  # a copy is in no fit

    def on_fit_start(self, trainer: Any) -> None:
        super().on_fit_start(trainer)
        os.makedirs(os.path.dirname(self.path) or ".", exist_ok=True)
        with open(self.path, "ab") as file:  # whether it can be written: nothing is lost yet
            self._size = file.tell() if self.append else 0

    def report(self, trainer: Any, epoch: int, logs: Logs) -> None:
        """Write the line of an epoch."""
        if self._file is None:
            self._file = open(self.path, "r+b", buffering=0)  # noqa: SIM115
            self._file.truncate(self._size)
            self._file.seek(self._size)
        self._file.write(self.lines(epoch, logs, first=self._size == 0).encode())
        self._size = self._file.tell()

    def lines(self, epoch: int, logs: Logs, *, first: bool) -> str:
        """Return what to write of an epoch; `first` if the file is empty."""
        raise NotImplementedError

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            file, self._file = self._file, None
            file.close()

    def training_state(self, trainer: Any) -> dict[str, Any]:
        return {**super().training_state(trainer), "size": self._size}

    def restore_training_state(self, trainer: Any, state: dict[str, Any]) -> None:
        size = check_integer("size", state["size"], at_least=0)
        if size <= os.path.getsize(self.path):  # otherwise what it had is gone
            self._size = size
            super().restore_training_state(trainer, state)


class CSVLogger(FileLogger):
    """Write losses and metrics into a CSV file, a line for each epoch.

    The columns are ``epoch`` and the names in the logs; numbers are written in full, so reading
    gives the same bits. Metrics that are no numbers are left out.

    Parameters
    ----------
    path : path-like
        Folders are made. A new fit writes it anew.
    append : bool, default False
        Write behind what is there instead.
    separator : str, default ","

    Raises
    ------
    OSError
        From the beginning of the fit, if the file cannot be written.

    Examples
    --------
    >>> import numpy as np, pyframe as pf
    >>> log = pf.callbacks.CSVLogger("log.csv")
    >>> trainer = pf.Trainer(pf.Sequential([pf.layers.Dense(1)]))
    >>> _ = trainer.fit(np.ones((4, 2)), np.ones(4), 2, callbacks=[log], verbose=0)
    >>> with open("log.csv") as file:
    ...     file.readline()
    'epoch,loss\\n'
    """

    aliases: ClassVar[tuple[str, ...]] = ("csv",)
    _attributes: ClassVar[dict[str, str]] = {**FileLogger._attributes, "separator": ""}
    _checks: ClassVar[dict[str, Callable[[Any], Any]]] = {
        **FileLogger._checks,
        "separator": lambda given: _one_character(given),
    }

    def __init__(
        self, path: str | os.PathLike[str], append: bool = False, separator: str = ","
    ) -> None:
        super().__init__(path, append)
        self.separator = separator

    def lines(self, epoch: int, logs: Logs, *, first: bool) -> str:
        """Return the line of an epoch, below that of the names if it is the first."""
        text = io.StringIO(newline="")
        writer = csv.writer(text, delimiter=self.separator, lineterminator="\n")
        numbers = {name: v for name, v in logs.items() if np.ndim(v) == 0}
        if first:
            writer.writerow(["epoch", *numbers])
        writer.writerow([epoch, *(float(v) for v in numbers.values())])
        return text.getvalue()


class JSONLogger(FileLogger):
    """Write losses and metrics into a file of JSON lines, an object for each epoch.

    Numbers that JSON has not, NaN and infinities, are written as null. `pandas.read_json(path,
    lines=True)` reads it.

    Parameters
    ----------
    path : path-like
    append : bool, default False
        As for `CSVLogger`.

    Raises
    ------
    OSError
        From the beginning of the fit, if the file cannot be written.

    Examples
    --------
    >>> import numpy as np, pyframe as pf
    >>> log = pf.callbacks.JSONLogger("log.jsonl")
    >>> trainer = pf.Trainer(pf.Sequential([pf.layers.Dense(1)]))
    >>> _ = trainer.fit(np.ones((4, 2)), np.ones(4), 2, callbacks=[log], verbose=0)
    >>> with open("log.jsonl") as file:
    ...     file.readline()[:20]
    '{"epoch": 0, "loss":'
    """

    aliases: ClassVar[tuple[str, ...]] = ("json_lines_logger", "jsonl_logger", "jsonl")
    _attributes: ClassVar[dict[str, str]] = {**FileLogger._attributes}

    def lines(self, epoch: int, logs: Logs, *, first: bool) -> str:
        """Return the line of an epoch."""
        return json.dumps({"epoch": epoch, **{k: _plain(v) for k, v in logs.items()}}) + "\n"


def _one_character(separator: Any) -> str:
    if isinstance(separator, str) and len(separator) == 1 and separator not in '\r\n"':
        return separator
    raise ArgumentError(
        f"separator={separator!r:.80}; it must be one character, such as ',' or ';'"
    )


def _plain(value: Any) -> Any:
    """Return a number, or a list of lists of them, as JSON has it."""
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(v) for v in value]
    return value if np.isfinite(value) else None
