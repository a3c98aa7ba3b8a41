"""The datasets: what they hold, and what damaged files are told."""

import gzip
import struct
import sys

import numpy as np
import pytest

from pyframe import datasets
from pyframe.datasets import boston
from pyframe.datasets.mnist import read_idx
from pyframe.errors import DatasetError, MissingExtraError, UnknownNameError

pytestmark = pytest.mark.once  # it says nothing of a kernel


def test_boston():
    table = datasets.load_boston()
    assert table.data.shape == (506, 13) and table.data.dtype == np.float64
    assert table.target.shape == (506,) and table.target.dtype == np.float64
    assert table.data.flags.c_contiguous and len(table) == 506
    names = " ".join(table.feature_names)
    assert names == "CRIM ZN INDUS CHAS NOX RM AGE DIS RAD TAX PTRATIO B LSTAT"
    assert table.data[0].tolist() == [
        0.00632, 18, 2.31, 0, 0.538, 6.575, 65.2, 4.09, 1, 296, 15.3, 396.9, 4.98
    ]  # fmt: skip
    assert table.target.mean() == pytest.approx(22.532806324110677, rel=1e-12)
    assert table.target.max() == 50
    # The lesson's straight line on RM, by least squares.
    k, b = np.polyfit(table.data[:, 5], table.target, 1)
    loss = ((k * table.data[:, 5] + b - table.target) ** 2).mean()
    assert (k, b, loss) == pytest.approx((9.10211, -34.67062, 43.60055), abs=1e-5)


def test_boston_says_what_is_wrong_with_it():
    description = datasets.load_boston().description
    for word in ("scikit-learn", "removed", "Bk", "segregation", "Harrison", "public domain"):
        assert word in description
    for name in datasets.load_boston().feature_names:
        assert f"\n{name} " in description


def test_boston_as_the_lesson_reads_it():
    table = datasets.load_boston()
    assert table["data"] is table.data and table["target"] is table.target
    with pytest.raises(KeyError, match="feature_names"):
        table["datum"]
    data, target = datasets.load_boston(return_X_y=True)
    np.testing.assert_array_equal(data, table.data)
    np.testing.assert_array_equal(target, table.target)
    with pytest.raises(DatasetError, match="no images"):
        table.images  # noqa: B018


def test_two_loads_share_nothing():
    datasets.load_boston().data[:] = 0
    assert datasets.load_boston().data[0, 5] == 6.575


@pytest.mark.parametrize("damage", ["absent", "cut", "text", "ragged"])
def test_a_damaged_boston_table(damage, tmp_path, monkeypatch):
    lines = boston.FILE.read_text().splitlines()
    file = tmp_path / "boston.csv"
    if damage == "cut":
        file.write_text("\n".join(lines[:10]))
    elif damage == "text":
        file.write_text("\n".join([*lines[:-1], lines[-1].replace(",", ",x", 1)]))
    elif damage == "ragged":
        file.write_text("\n".join([*lines[:-1], "1,2"]))
    monkeypatch.setattr(boston, "FILE", file)
    with pytest.raises(DatasetError, match=r"boston\.csv.*reinstall"):
        datasets.load_boston()


def test_digits():
    sklearn_datasets = pytest.importorskip("sklearn.datasets", reason="needs scikit-learn")
    digits = datasets.load_digits()
    theirs = sklearn_datasets.load_digits()
    np.testing.assert_array_equal(digits.data, theirs.data)
    np.testing.assert_array_equal(digits.target, theirs.target)
    np.testing.assert_array_equal(digits.images[..., 0], theirs.images)
    assert digits.target.dtype == np.int64 and digits.images.shape == (1797, 8, 8, 1)
    assert np.shares_memory(digits.images, digits.data)


def test_digits_without_scikit_learn(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(MissingExtraError, match=r"pyframe-nn\[sklearn\]"):
        datasets.load_digits()


def test_by_name():
    assert datasets.get("boston") is datasets.load_boston
    with pytest.raises(UnknownNameError, match="mnist"):
        datasets.get("mnits")


# ---- MNIST ----

FILES = {
    "train-images-idx3-ubyte": (3, (7, 28, 28)),
    "train-labels-idx1-ubyte": (1, (7,)),
    "t10k-images-idx3-ubyte": (3, (4, 28, 28)),
    "t10k-labels-idx1-ubyte": (1, (4,)),
}


def idx(ndim, shape, elements=None):
    if elements is None:
        elements = (np.arange(np.prod(shape)) % 10).astype(np.uint8).tobytes()
    return bytes([0, 0, 8, ndim]) + struct.pack(f">{len(shape)}I", *shape) + elements


def pack(content, zipped):
    return gzip.compress(content, 1) if zipped else content


@pytest.fixture(params=[False, True], ids=["plain", "gzip"])
def zipped(request):
    return request.param


@pytest.fixture
def folder(tmp_path, zipped):
    """Return a folder with four small, whole files."""
    for name, (ndim, shape) in FILES.items():
        suffix = ".gz" if zipped else ""
        (tmp_path / (name + suffix)).write_bytes(pack(idx(ndim, shape), zipped))
    return tmp_path


def put(folder, name, content, zipped):
    """Replace a file and return its path."""
    file = folder / (name + (".gz" if zipped else ""))
    file.write_bytes(pack(content, zipped))
    return file


def test_mnist_files(folder):
    train, test = datasets.load_mnist(folder)
    assert train.data.shape == (7, 784) and train.data.dtype == np.uint8
    assert train.target.tolist() == [0, 1, 2, 3, 4, 5, 6] and train.target.dtype == np.int64
    np.testing.assert_array_equal(train.data.ravel(), np.arange(7 * 784) % 10)
    assert test.images.shape == (4, 28, 28, 1) and test.target.shape == (4,)
    assert train.feature_names[29] == "pixel_1_1"
    train.data[0, 0] = 9  # the arrays are the caller's


def test_mnist_by_environment(folder, monkeypatch):
    monkeypatch.setenv("PYFRAME_DATA", str(folder))
    assert len(datasets.load_mnist().train) == 7
    monkeypatch.delenv("PYFRAME_DATA")
    with pytest.raises(DatasetError, match="PYFRAME_DATA is not set"):
        datasets.load_mnist()


def test_a_gzipped_file_may_lack_its_suffix(folder):
    name = "t10k-labels-idx1-ubyte"
    (folder / f"{name}.gz").unlink(missing_ok=True)
    (folder / name).write_bytes(gzip.compress(idx(1, (4,))))
    assert len(datasets.load_mnist(folder).test) == 4


def test_where_the_files_are_to_be_had(tmp_path):
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(DatasetError, match=r"torchvision.*Nothing is downloaded"):
            datasets.load_mnist(path)


DAMAGES = {
    "empty": (lambda whole: b"", "ends after 0 bytes, within its header"),
    "half a header": (lambda whole: whole[:9], "ends after 9 bytes, within its header"),
    "header alone": (lambda whole: whole[:16], "ends after 0 of the 5488 bytes"),
    "cut off": (lambda whole: whole[:-1], "ends after 5487 of the 5488 bytes"),
    "too long": (lambda whole: whole + b"\0", "goes on after the 5488 bytes"),
    "wrong type": (lambda whole: b"\0\0\x0d\x03" + whole[4:], "begins with 00 00 0d 03 instead"),
    "labels": (lambda whole: idx(1, (7,)), "begins with 00 00 08 01 instead of 00 00 08 03"),
    "a page": (lambda whole: b"<!DOCTYPE html>" + bytes(9), "begins with 3c 21 44 4f"),
    "a huge count": (
        lambda whole: idx(3, (2**32 - 1, 2**32 - 1, 2**32 - 1), b"abc"),
        "ends after 3 of the",
    ),
    "other images": (lambda whole: idx(3, (7, 28, 27)), r"its images are \(28, 27\)"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_images(damage, folder, zipped):
    make, message = DAMAGES[damage]
    name = "train-images-idx3-ubyte"
    file = put(folder, name, make(idx(*FILES[name])), zipped)
    with pytest.raises(DatasetError, match=message) as caught:
        datasets.load_mnist(folder)
    assert str(file) in str(caught.value) and "torchvision" in str(caught.value)


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_absent(name, folder, zipped):
    (folder / (name + (".gz" if zipped else ""))).unlink()
    with pytest.raises(DatasetError, match=f"neither {name} nor {name}.gz"):
        datasets.load_mnist(folder)


def test_images_and_labels_of_different_sets(folder, zipped):
    put(folder, "train-labels-idx1-ubyte", idx(1, (6,)), zipped)
    with pytest.raises(DatasetError, match=r"7 images and .* has 6 labels"):
        datasets.load_mnist(folder)


def test_a_label_above_9(folder, zipped):
    put(folder, "t10k-labels-idx1-ubyte", idx(1, (4,), bytes([1, 2, 10, 3])), zipped)
    with pytest.raises(DatasetError, match="has the label 10"):
        datasets.load_mnist(folder)


@pytest.mark.parametrize("where", ["cut off", "header", "middle", "checksum"])
def test_a_damaged_gzip_stream(where, tmp_path):
    rng = np.random.default_rng(0)
    content = rng.integers(0, 256, 50 * 784, np.uint8).tobytes()
    whole = bytearray(gzip.compress(idx(3, (50, 28, 28), content)))
    if where == "cut off":
        del whole[len(whole) // 2 :]
    else:
        at = {"header": 3, "middle": len(whole) // 2, "checksum": len(whole) - 6}[where]
        whole[at] ^= 0xFF
    file = tmp_path / "images.gz"
    file.write_bytes(whole)
    with pytest.raises(DatasetError, match=r"images\.gz"):
        read_idx(file, 3)


def test_a_folder_in_place_of_a_file(tmp_path):
    with pytest.raises(DatasetError, match="cannot be read"):
        read_idx(tmp_path, 3)


def test_the_real_files(data_dir):
    train, test = datasets.load_mnist(data_dir)
    assert train.images.shape == (60000, 28, 28, 1) and test.images.shape == (10000, 28, 28, 1)
    # Known of the original: the first labels, the counts of each digit, the mean pixel.
    assert train.target[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert test.target[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    assert np.bincount(train.target).tolist() == [
        5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949
    ]  # fmt: skip
    assert train.data.mean() / 255 == pytest.approx(0.1307, abs=5e-5)
