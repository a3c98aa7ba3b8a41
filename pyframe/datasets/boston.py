"""The Boston housing table, which ships with the package."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
import numpy.typing as npt

from pyframe.datasets.base import Dataset
from pyframe.errors import DatasetError, raise_if_signalled

FILE = Path(__file__).parent / "data" / "boston_house_prices.csv"
ROWS, COLUMNS = 506, 13

DESCRIPTION = """\
Housing in the Boston area, one row for each of 506 census tracts of 1970.

CRIM     crimes per person, by town
ZN       share of residential land zoned for lots over 25,000 square feet, in percent
INDUS    share of land used by non-retail business, by town, in percent
CHAS     1 if the tract lies on the Charles River, else 0
NOX      nitric oxides in the air, parts in 10 million
RM       average number of rooms in a dwelling
AGE      share of owner-occupied dwellings built before 1940, in percent
DIS      weighted distance to five employment centres
RAD      index of access to radial highways
TAX      property tax in dollars on a value of 10,000
PTRATIO  pupils for each teacher, by town
B        1000 (Bk - 0.63)^2, where Bk is the share of Black residents, by town
LSTAT    share of residents of lower status, in percent
target   median value of owner-occupied homes in thousands of dollars, cut off at 50

Source: D. Harrison, D. L. Rubinfeld, "Hedonic housing prices and the demand for clean air",
Journal of Environmental Economics and Management 5, 1978. The table is in the public domain.

Beware. scikit-learn deprecated this table in its version 1.0 and removed it in 1.2. The column B
is built on the assumption that the racial make-up of a town sets house prices, in a curve that
takes segregation to be good for them; the assumption was put in, not found, and Bk cannot be
recovered from B without guessing. The study's own question was what people pay for clean air.
The table is here because the lesson that this package follows uses it, mostly its column RM. Use
it to learn how fitting works; do not use it to conclude anything about houses or people, and leave
B out of models that anyone might rely on. For a table of housing without these faults take
California housing (fetch_california_housing of sklearn.datasets) or Ames (fetch_openml, there too,
with "house_prices").
"""


@overload
def load_boston(return_X_y: Literal[False] = False) -> Dataset: ...  # noqa: N803


@overload
def load_boston(
    return_X_y: Literal[True],  # noqa: N803
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]: ...


def load_boston(return_X_y: bool = False) -> Any:  # noqa: N803
    """Return the Boston housing table; read its `description` before you use it.

    Parameters
    ----------
    return_X_y : bool, default False
        True: return (data, target) alone.

    Returns
    -------
    Dataset
        data of shape (506, 13), float64; target, the prices, of shape (506,), float64.

    Examples
    --------
    >>> import pyframe as pf
    >>> boston = pf.datasets.load_boston()
    >>> boston.data.shape, boston.feature_names[5], boston.target[:3].tolist()
    ((506, 13), 'RM', [24.0, 21.6, 34.7])
    """
    try:
        with FILE.open(newline="", encoding="ascii") as file:
            columns = list(csv.reader(file))  # a line for each: that compresses better
        table = np.array([values for _, *values in columns], np.float64).T
    except (OSError, ValueError) as error:
        raise_if_signalled(error)
        raise DatasetError(f"{FILE} is absent or damaged: {error}; reinstall pyframe-nn") from error
    if table.shape != (ROWS, COLUMNS + 1):
        raise DatasetError(
            f"{FILE} has {table.shape} entries instead of {(ROWS, COLUMNS + 1)}; "
            "reinstall pyframe-nn"
        )
    data, target = np.ascontiguousarray(table[:, :COLUMNS]), table[:, COLUMNS].copy()
    if return_X_y:
        return data, target
    return Dataset(data, target, [name for name, *_ in columns[:COLUMNS]], DESCRIPTION)
