"""Tables from files: CSV, Parquet, NPZ and JSON lines, told apart by how they begin."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import sys
import warnings
from typing import Any, BinaryIO

import numpy as np
import pandas as pd

from pyframe.errors import DatasetError, MissingExtraError, raise_if_signalled
from pyframe.tabular.columns import as_frame

MOST_COLUMNS = 20_000
LONGEST_LINE, SAMPLE = 1 << 24, 1 << 16
DECIMAL, THOUSANDS = re.compile(r"[-+]?\d+,\d+"), re.compile(r"[-+]?\d{1,3}(,\d{3})+")


def read_table(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Return the table of a file; what it is, and how a CSV is written, is found by looking.

    Parameters
    ----------
    path : path-like
        A CSV (any delimiter, a decimal comma, a byte-order mark), a Parquet, NPZ or JSON-lines
        file, gzipped or not; ``-`` is the standard input.

    Returns
    -------
    DataFrame

    Raises
    ------
    DatasetError
        If it is no table, has no rows, or more than 20,000 columns.
    MissingExtraError
        For Parquet without pyarrow.
    OSError
        If it cannot be read.

    Examples
    --------
    >>> from pathlib import Path
    >>> from pyframe.tabular import read_table
    >>> _ = Path("prices.csv").write_text("rooms;price\\n3,5;200\\n4,5;310\\n")
    >>> read_table("prices.csv").to_dict("list")
    {'rooms': [3.5, 4.5], 'price': [200, 310]}
    """
    source = os.fspath(path)
    if source == "-":
        if sys.stdin is None:
            raise DatasetError("the standard input is closed")
        return _read(io.BytesIO(sys.stdin.buffer.read()), "standard input")
    with open(path, "rb") as file:
        return _read(file, source)


def _read(file: BinaryIO, source: str) -> pd.DataFrame:
    start = file.read(4)
    file.seek(0)
    if start[:2] == b"\x1f\x8b":
        import gzip

        return _read(io.BytesIO(gzip.GzipFile(fileobj=file).read()), source)
    try:
        if start == b"PAR1":
            frame = _parquet(file, source)
        elif start == b"PK\x03\x04":
            frame = _npz(file, source)
        elif start[:1] == b"{":
            frame = _json_lines(file, source)
        else:
            frame = _csv(file, source)
    except (ValueError, csv.Error) as error:
        raise_if_signalled(error)
        if isinstance(error, DatasetError):
            raise
        raise DatasetError(f"{source}: {str(error).strip()}") from error
    if not len(frame):
        raise DatasetError(f"{source} has no rows")
    return as_frame(frame, source)


def _check_width(columns: int, source: str) -> None:
    if columns > MOST_COLUMNS:
        raise DatasetError(
            f"{source} has {columns:,} columns, and at most {MOST_COLUMNS:,} are read; take those "
            "that matter, or train on an array with pyframe.Trainer"
        )


def _parquet(file: BinaryIO, source: str) -> pd.DataFrame:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise MissingExtraError(
            "pyarrow is needed for Parquet and is not installed: pip install pyarrow"
        ) from error
    table = parquet.ParquetFile(file)
    _check_width(table.metadata.num_columns, source)
    return table.read().to_pandas()


def _npz(file: BinaryIO, source: str) -> pd.DataFrame:
    columns: dict[str, Any] = {}
    with np.load(file, allow_pickle=False) as arrays:
        for key in arrays.files:
            array = arrays[key]
            if array.ndim == 1 or array.shape[1:] == (1,):
                columns[key] = array.reshape(-1)
                continue
            if array.ndim != 2:
                raise DatasetError(f"{source}: array {key!r} has shape {array.shape}, not rows")
            _check_width(array.shape[1], source)
            columns |= {f"{key}{i}": column for i, column in enumerate(array.T)}
    _check_width(len(columns), source)
    return pd.DataFrame(columns)


def _json_lines(file: BinaryIO, source: str) -> pd.DataFrame:
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(file, 1):
        if line.strip():
            try:
                row = json.loads(line)
            except ValueError as error:
                raise_if_signalled(error)
                raise DatasetError(f"{source}, line {number} is no JSON: {error}") from error
            if not isinstance(row, dict):
                raise DatasetError(f"{source}, line {number} is no object with columns")
            if not rows:
                _check_width(len(row), source)
            rows.append(row)
    return pd.DataFrame(rows)


def _csv(file: BinaryIO, source: str) -> pd.DataFrame:
    first = file.readline(LONGEST_LINE)
    sample = first + b"".join(file.readlines(SAMPLE))
    file.seek(0)
    if not sample.strip():
        raise DatasetError(f"{source} is empty")
    _check_width(max(first.count(mark) for mark in (b",", b";", b"\t", b"|")) + 1, source)
    encoding = "utf-8-sig"
    if sample[:2] in (b"\xff\xfe", b"\xfe\xff"):
        encoding = "utf-16"
    elif b"\0" in sample:
        raise DatasetError(f"{source} is no table: neither CSV, Parquet, NPZ nor JSON lines")
    else:
        try:
            sample.decode(encoding)
        except UnicodeDecodeError as error:
            raise_if_signalled(error)
            encoding = "cp1252"  # what spreadsheets write on Windows
    if encoding == "utf-16":
        file = io.BytesIO(file.read().decode(encoding).encode())
        return _csv(file, source)
    lines = sample.decode(encoding).splitlines()[:200]
    delimiter = _delimiter(lines[:20])
    rows = list(csv.reader(lines, delimiter=delimiter))
    options: dict[str, Any] = {}
    commas = [c for row in rows[1:] for c in row if DECIMAL.fullmatch(c.strip())]
    if commas and (delimiter != "," or not all(THOUSANDS.fullmatch(c.strip()) for c in commas)):
        options["decimal"] = ","
    elif commas:
        options["thousands"] = ","
    if all(_is_number(c) for c in rows[0]) and not _counts(rows[0]):
        options |= {"header": None, "names": [str(i) for i in range(len(rows[0]))]}
    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)
        try:
            return pd.read_csv(
                file, sep=delimiter, encoding=encoding, index_col=False, low_memory=False,
                na_values=["?"], skipinitialspace=True, **options,
            )  # fmt: skip
        except pd.errors.ParserWarning as error:
            raise DatasetError(f"{source}: rows have more fields than the first line") from error


def _delimiter(lines: list[str]) -> str:
    """Return what parts the first lines into the most columns, of one number in each line."""
    widths = {}
    for mark in ",;\t|":
        counts = {len(row) for row in csv.reader(lines, delimiter=mark) if row}
        widths[mark] = (len(counts) == 1, min(counts))
    # Decimal commas part the lines as well, into as many pieces or more, but not the heading.
    best = max(widths, key=lambda mark: widths[mark] if widths[mark][1] > 1 else (False, 0))
    heading = {mark: lines[0].count(mark) for mark in widths}
    return best if heading[best] else max(heading, key=lambda mark: heading[mark])


def _is_number(cell: str) -> bool:
    try:
        float(cell.replace(",", "."))
    except ValueError as error:
        raise_if_signalled(error)
        return False
    return True


def _counts(cells: list[str]) -> bool:
    """Return whether cells are 0, 1, 2 ... or 1, 2, 3 ..., as a heading may be."""
    return any(cells == [str(i + first) for i in range(len(cells))] for first in (0, 1))
