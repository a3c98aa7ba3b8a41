"""Columns of a table as numbers: what each is, and how its values become inputs of a network.

A column is described by plain JSON, which a model file keeps: its name, its kind, and what was
learned from the rows to train on. Every kind has a function that learns and one that encodes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from pyframe.attributes import flag, number, one_of
from pyframe.checkpoint.schema import list_of, record, text
from pyframe.errors import ArgumentError, DatasetError, raise_if_signalled
from pyframe.graph.spec import Array

Column = dict[str, Any]

IDENTIFIER = re.compile(r"(unnamed: 0|index|row|uuid|guid|(.*[ _-])?id)", re.IGNORECASE)
DAY = pd.Timedelta(days=1)
DATES = ["ISO8601", "%d.%m.%Y", "%m/%d/%Y", "%d/%m/%Y", "%d-%b-%Y", "%d %B %Y"]
DATE_FORMATS = [*DATES, *(f"{d} {t}" for d in DATES[1:] for t in ("%H:%M", "%H:%M:%S"))]
PERIODS = {"month": 12.0, "day_of_week": 7.0, "hour": 24.0}


def as_frame(data: Any, what: str = "X") -> pd.DataFrame:
    """Return any table as a frame whose columns have different names; see `TabularModel.fit`.

    Raises
    ------
    DatasetError
        If it is no table.
    """
    if not isinstance(data, pd.DataFrame):
        if hasattr(data, "collect_schema") and hasattr(data, "collect"):
            data = data.collect()  # a lazy frame of polars
        if hasattr(data, "to_dict") and type(data).__module__.startswith("polars"):
            data = data.to_dict(as_series=False)  # to_pandas would need pyarrow
        elif hasattr(data, "to_pandas"):
            data = data.to_pandas()
        elif hasattr(data, "toarray"):
            data = data.toarray()
        elif isinstance(data, np.ndarray) and data.ndim != 2 and data.dtype.names is None:
            raise DatasetError(f"{what} has shape {data.shape}; a table has rows and columns")
        if isinstance(data, pd.Series):
            data = data.to_frame()
        try:
            data = pd.DataFrame(data)
        except (TypeError, ValueError) as error:
            raise_if_signalled(error)
            raise DatasetError(f"{what} is no table: {error}") from error
        if isinstance(data.columns, pd.RangeIndex):
            data = data.infer_objects().set_axis([f"x{i}" for i in data.columns], axis=1)
    frame = data.set_axis([str(name) for name in data.columns], axis=1)
    odd = [n for n, t in enumerate(frame.dtypes) if isinstance(t, ODD_DTYPES)]
    if odd:
        frame = pd.concat([as_series(frame.iloc[:, n]) for n in range(frame.shape[1])], axis=1)
    if not frame.columns.is_unique:
        twice = frame.columns[frame.columns.duplicated()][0]
        raise DatasetError(f"{what} has two columns {twice!r}; rename one")
    return frame


ODD_DTYPES = (pd.ArrowDtype, pd.PeriodDtype)


def as_series(values: pd.Series) -> pd.Series:
    """Return a column of Arrow's as pandas' own, and periods as the times when they begin."""
    if isinstance(values.dtype, pd.ArrowDtype):
        array = values.array.__arrow_array__().to_pandas().array
        return pd.Series(array, values.index, name=values.name)
    return values.dt.to_timestamp() if isinstance(values.dtype, pd.PeriodDtype) else values


def _wrong(values: pd.Series, bad: Any, wanted: str) -> DatasetError:
    row = int(np.flatnonzero(bad)[0])
    return DatasetError(f"column {values.name!r}, row {row}: {values.iloc[row]!r:.80} is {wanted}")


def as_numbers(values: pd.Series) -> Array:
    """Return a column as float64, what is missing as NaN, or raise `DatasetError`."""
    parsed = pd.to_numeric(values, errors="coerce")
    bad = (parsed.isna() & values.notna()).to_numpy()
    if bad.any():
        raise _wrong(values, bad, "no number")
    array: Array = parsed.to_numpy(np.float64, na_value=np.nan)
    if np.isinf(array).any():
        raise _wrong(values, np.isinf(array), "not finite")
    return array


def as_texts(values: pd.Series) -> Any:
    """Return a column as texts, what is missing as None: 3 and 3.0 are "3"."""
    found = values.dropna()
    if pd.api.types.is_float_dtype(found) and (found == found.round()).all():
        found = found.astype("int64")
    result = np.full(len(values), None, object)
    result[values.notna().to_numpy()] = [str(value) for value in found]
    return result


def as_times(values: pd.Series, form: str) -> pd.Series:
    """Return a column of dates as times without a zone, or raise `DatasetError`."""
    if pd.api.types.is_datetime64_any_dtype(values):
        times = values
    else:
        given = values.map(str, na_action="ignore").astype(object)
        times = pd.to_datetime(given, format=form, errors="coerce", utc=True)
        bad = (times.isna() & values.notna()).to_numpy()
        if bad.any():
            raise _wrong(values, bad, f"no date of the format {form}")
    return times.dt.tz_convert(None) if times.dt.tz is not None else times


def _period(times: pd.Series, part: str) -> Any:
    if part == "hour":
        return (times.dt.hour + times.dt.minute / 60).to_numpy(np.float64)
    return getattr(times.dt, part).to_numpy(np.float64)


def _days(times: pd.Series) -> Any:
    return ((times - pd.Timestamp(0)) / DAY).to_numpy(np.float64)


def _scale(array: Array) -> dict[str, float]:
    """Return the median, and the distance of the quartiles or else half the range, 1 if both are 0.

    That, and `_squash`: Holzmueller et al., "Better by default: strong pre-tuned MLPs", 2024,
    section 3.
    """
    found = array[~np.isnan(array)]
    low, median, high = np.quantile(found, [0.25, 0.5, 0.75]) if len(found) else (0.0, 0.0, 0.0)
    spread = high - low or (np.ptp(found) / 2 if len(found) else 0.0)
    return {"center": float(median), "scale": float(spread) or 1.0}


def _squash(array: Array, column: Column) -> Any:
    """Return z / sqrt(1 + (z / 3)^2) for z = (x - center) / scale; 0 where x is missing."""
    z = (array - column["center"]) / column["scale"]
    return np.nan_to_num(z / np.sqrt(1 + (z / 3) ** 2))


# ---- learning: what is kept of a column ----


def _learn_number(values: pd.Series, most: int) -> Column:
    return _scale(as_numbers(values))


def _learn_boolean(values: pd.Series, most: int) -> Column:
    return {}


def _learn_category(values: pd.Series, most: int) -> Column:
    counts = pd.Series(as_texts(values)).value_counts()
    least = max(2, len(values) // 1000) if len(values) > 20 else 1
    kept = [str(value) for value in counts.index[counts >= least][:most]]
    return {"values": sorted(kept), "values_seen": len(counts)}


def _learn_date(values: pd.Series, most: int) -> Column:
    form = _date_format(values) or "ISO8601"
    times = as_times(values, form)
    parts = [p for p in PERIODS if len(np.unique(_period(times.dropna(), p))) > 1]
    return {"format": form, "parts": parts, **_scale(_days(times))}


# ---- encoding: arrays (n, columns) ----


def _encode_number(values: pd.Series, column: Column) -> list[Array]:
    return [_squash(as_numbers(values), column)]


def _encode_boolean(values: pd.Series, column: Column) -> list[Array]:
    texts = pd.Series(as_texts(values)).str.lower()
    signs = texts.map({"true": 1.0, "1": 1.0, "false": -1.0, "0": -1.0})
    bad = (signs.isna() & texts.notna()).to_numpy()
    if bad.any():
        raise _wrong(values, bad, "neither true nor false")
    return [signs.fillna(0.0).to_numpy(np.float64)]


def _encode_category(values: pd.Series, column: Column) -> list[Array]:
    codes = pd.Index(column["values"], dtype=object).get_indexer(
        pd.Index(as_texts(values), dtype=object)
    )
    hot = np.zeros((len(values), len(column["values"])))
    known = np.flatnonzero(codes >= 0)
    hot[known, codes[known]] = 1.0
    return [hot]


def _encode_date(values: pd.Series, column: Column) -> list[Array]:
    times = as_times(values, column["format"])
    made = [_squash(_days(times), column)]
    for part in column["parts"]:
        angle = _period(times, part) * (2 * np.pi / PERIODS[part])
        made += [np.nan_to_num(np.sin(angle)), np.nan_to_num(np.cos(angle))]
    return made


KINDS: dict[str, tuple[Callable[..., Column], Callable[..., list[Array]]]] = {
    "number": (_learn_number, _encode_number),
    "boolean": (_learn_boolean, _encode_boolean),
    "category": (_learn_category, _encode_category),
    "date": (_learn_date, _encode_date),
}
LEFT_OUT = "left out"

# What a file must have for each kind; the numbers are finite.
SCALE = {"center": number(), "scale": number(above=0)}
FIELDS: dict[str, dict[str, Any]] = {
    "number": SCALE,
    "boolean": {},
    "category": {"values": list_of(text)},
    "date": {"format": one_of(DATE_FORMATS), "parts": list_of(one_of(PERIODS)), **SCALE},
    LEFT_OUT: {"why": text},
}


def check_column(value: Any, what: str) -> Any:
    """Return a column that a file describes, or raise `ArgumentError`: a rule."""
    record(name=text, kind=one_of(FIELDS), missing=flag)(value, what)
    return record(**FIELDS[value["kind"]])(value, what)


def _date_format(values: pd.Series) -> str | None:
    """Return the first format that all of some texts have."""
    texts = values.dropna().map(str)
    if not texts.str.contains(r"\d[-/. ]", regex=True).all():
        return None
    for form in DATE_FORMATS:
        if not pd.to_datetime(texts, format=form, errors="coerce", utc=True).isna().any():
            return form
    return None


def _kind(values: pd.Series, most: int) -> tuple[str, str]:
    """Return the kind of a column, and why if it is left out."""
    found, types = values.dropna(), pd.api.types
    if not len(found):
        return LEFT_OUT, "it is empty"
    try:
        distinct = found.nunique()
    except TypeError as error:
        raise_if_signalled(error)
        raise _wrong(values, values.notna(), "neither number, text nor date") from error
    if distinct == 1 and len(found) == len(values):
        return LEFT_OUT, f"it is always {found.iloc[0]!s:.40}"
    if types.is_bool_dtype(found) or set(map(type, found.head(1000))) <= {bool, np.bool_}:
        return "boolean", ""
    if types.is_datetime64_any_dtype(values):
        return "date", ""
    if types.is_numeric_dtype(values):
        whole = types.is_integer_dtype(values) and distinct == len(values) > 2
        if whole and IDENTIFIER.fullmatch(str(values.name)):
            return LEFT_OUT, "it is an identifier: its whole numbers are all different"
        if whole and values.iloc[0] in (0, 1) and (values.diff().iloc[1:] == 1).all():
            return LEFT_OUT, "it numbers the rows"
        return "number", ""
    if types.is_complex_dtype(values) or types.is_timedelta64_dtype(values):
        raise _wrong(values, values.notna(), "neither number, text nor date")
    categorical = isinstance(values.dtype, pd.CategoricalDtype)
    if not categorical and not pd.to_numeric(found, errors="coerce").isna().any():
        return "number", ""
    if not categorical and _date_format(found.head(200)) and _date_format(found):
        return "date", ""
    if distinct > max(len(found) / 2, 10):
        return LEFT_OUT, f"it has {distinct} different texts in {len(found)} rows"
    return "category", ""


def learn(frame: pd.DataFrame, kinds: Mapping[str, str], most: int) -> list[Column]:
    """Return the columns of a table, with all that encoding them takes.

    Parameters
    ----------
    frame : DataFrame
    kinds : dict of str to str
        Those that are known.
    most : int
        Categories of a column that are told apart.
    """
    strange = [name for name in kinds if name not in frame.columns]
    if strange:
        raise ArgumentError(
            f"kinds: there is no column {strange[0]!r}; {nearest(strange[0], frame)}"
        )
    columns = []
    for name in frame.columns:
        values = frame[name]
        kind, why = _kind(values, most)
        if name in kinds:
            kind, why = one_of(FIELDS)(kinds[name], f"kinds[{name!r}]"), "you said so"
        column: Column = {"name": name, "kind": kind, "missing": bool(values.isna().any())}
        if kind == LEFT_OUT:
            column["why"] = why
        else:
            column |= KINDS[kind][0](values, most)
        columns.append(column)
    return columns


def encode(frame: pd.DataFrame, columns: Iterable[Column]) -> Any:
    """Return a table as the network takes it, float32 (n, inputs).

    Raises
    ------
    DatasetError
        If columns are missing, or hold what they did not.
    """
    used = [column for column in columns if column["kind"] != LEFT_OUT]
    missing = [column["name"] for column in used if column["name"] not in frame.columns]
    if missing:
        known = {column["name"] for column in columns}
        extra = [name for name in frame.columns if name not in known]
        raise DatasetError(
            f"the table lacks {_listed(missing)}"
            + (f"; it has {_listed(extra)} besides" if extra else "")
        )
    parts = []
    for column in used:
        values = frame[column["name"]]
        parts += KINDS[column["kind"]][1](values, column)
        if column["missing"]:
            parts.append(values.isna().to_numpy(np.float64))
    return np.column_stack(parts).astype(np.float32)


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return f"the column{'s' if len(names) > 1 else ''} {', '.join(map(repr, names[:8]))}{more}"


def nearest(name: str, frame: pd.DataFrame) -> str:
    """Return what to say of a column that is not there."""
    import difflib

    names = list(frame.columns)
    by_case = {n.casefold().strip(): n for n in names}
    near = [by_case[n] for n in difflib.get_close_matches(name.casefold(), by_case, 3, 0.5)]
    return f"did you mean {' or '.join(map(repr, near))}?" if near else f"it has {_listed(names)}"
