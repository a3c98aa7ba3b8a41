"""Tables from files: how they are written is found out by looking."""

from __future__ import annotations

import time

import numpy as np
import pandas as pd
import pytest
from tables import TABLE

from pyframe.errors import DatasetError
from pyframe.tabular import read_table

pytestmark = [
    pytest.mark.sklearn,
    pytest.mark.once,
    pytest.mark.filterwarnings("ignore:it was still getting better"),
]


COMMA = b"a;b;c\n1,5;x;1\n-2,25;\xc3\xbc;2\n3000,0;;3\n"


WRITTEN = {
    "plain": TABLE.to_csv(index=False).encode(),
    "byte-order mark": b"\xef\xbb\xbf" + TABLE.to_csv(index=False).encode(),
    "semicolons and decimal commas": COMMA,
    "windows": COMMA.decode().replace("\n", "\r\n").encode("cp1252"),
    "utf-16": COMMA.decode().encode("utf-16"),
    "tabs": TABLE.to_csv(index=False, sep="\t").encode(),
    "quoted decimal commas": b'a,b,c\n"1,5",x,1\n"-2,25",\xc3\xbc,2\n"3000,0",,3\n',
    "json lines": TABLE.to_json(orient="records", lines=True).encode(),
    "gzip": __import__("gzip").compress(TABLE.to_csv(index=False).encode()),
}


@pytest.mark.parametrize("what", WRITTEN)
def test_how_a_table_is_written_is_found_by_looking(what, tmp_path):
    (tmp_path / "t").write_bytes(WRITTEN[what])
    found = read_table(tmp_path / "t")
    assert found["a"].tolist() == TABLE["a"].tolist() and found["c"].tolist() == [1, 2, 3]
    assert found["b"].isna().tolist() == [False, False, True]
    assert found["b"].tolist()[:2] == ["x", "ü"]


def test_parquet_and_npz(tmp_path):
    pytest.importorskip("pyarrow")
    TABLE.to_parquet(tmp_path / "t.parquet")
    pd.testing.assert_frame_equal(read_table(tmp_path / "t.parquet"), TABLE)
    np.savez(tmp_path / "t.npz", X=np.ones((4, 2)), y=np.arange(4))
    assert read_table(tmp_path / "t.npz").columns.tolist() == ["X0", "X1", "y"]


def test_a_csv_without_a_heading(tmp_path):
    (tmp_path / "t").write_text("1.5,2\n3.5,4\n")
    assert read_table(tmp_path / "t").to_dict("list") == {"0": [1.5, 3.5], "1": [2, 4]}


BROKEN = {
    "empty": (b"", "is empty"),
    "heading alone": (b"a,b\n", "no rows"),
    "ragged": (b"a,b\n1,2\n1,2,3,4\n", "more fields|Expected 2"),
    "no table": (bytes(range(256)) * 9, "no table|no rows|fields"),
    "no JSON": (b'{"a": 1}\n{"a": \n', "line 2 is no JSON"),
    "a million columns": (b",".join(b"c%d" % i for i in range(10**6)) + b"\n", "1,000,000 columns"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_files_that_are_no_tables(what, tmp_path):
    content, words = BROKEN[what]
    (tmp_path / "t").write_bytes(content)
    began = time.monotonic()
    with pytest.raises(DatasetError, match=words):
        read_table(tmp_path / "t")
    assert time.monotonic() - began < 60
