"""What every loader returns."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from pyframe.errors import DatasetError


@dataclass(frozen=True, eq=False)
class Dataset:
    """Samples with their targets.

    Fields can also be read as ``dataset["data"]``.

    Attributes
    ----------
    data : ndarray of shape (n, features)
    target : ndarray of shape (n,)
        float64 values, or int64 labels.
    feature_names : list of str
        One a column of `data`.
    description : str
        Source of the data, meaning of the columns, and caveats.
    image_shape : tuple of int, optional
        (height, width, channels) when each row of `data` is an image.

    Examples
    --------
    >>> import pyframe as pf
    >>> pf.datasets.load_boston()
    <Dataset of 506 samples: data (506, 13), targets (506,)>
    """

    data: npt.NDArray[Any]
    target: npt.NDArray[Any]
    feature_names: list[str]
    description: str
    image_shape: tuple[int, int, int] | None = None

    @property
    def images(self) -> npt.NDArray[Any]:
        """`data` as images of shape (n, height, width, channels): a view.

        Raises
        ------
        DatasetError
            If the rows are no images.
        """
        if self.image_shape is None:
            raise DatasetError("the rows of this dataset are no images")
        return self.data.reshape(len(self.data), *self.image_shape)

    def __getitem__(self, key: str) -> Any:
        names = [f.name for f in fields(self)] + ["images"]
        if key not in names:
            raise KeyError(f"a dataset has no {key!r}; it has {', '.join(names)}")
        return getattr(self, key)

    def __len__(self) -> int:
        return len(self.data)

    def __repr__(self) -> str:
        kinds = "labels" if self.target.dtype == np.int64 else "targets"
        return (
            f"<Dataset of {len(self)} samples: data {self.data.shape}, {kinds} {self.target.shape}>"
        )
