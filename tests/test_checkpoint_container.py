"""The container of model files: what is not whole and honest is refused, in little memory."""

from __future__ import annotations

import hashlib
import io
import json
import struct
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save

import pyframe as pf
from pyframe.checkpoint import container

pytestmark = pytest.mark.once

DATA = Path(__file__).parent / "data"
ALLOWED = 64 << 20  # bytes of memory above the size of the file


def small() -> bytes:
    """Return a file with two arrays and a short document."""
    arrays = {"a/b": np.arange(3, dtype=np.float32), "c": np.array([[1], [-1]], np.int64)}
    return container.serialize({"format_version": 2, "kind": "é", "nodes": []}, arrays)


def content(data: bytes) -> Any:
    """Return all that a file says."""
    file = io.BytesIO(data)
    header = container.read_header(file, "it")
    arrays = container.read_arrays(file, header, "it")
    return header.document, {n: (a.dtype, a.shape, a.tobytes()) for n, a in arrays.items()}


def with_header(header: Any, data: bytes = b"") -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + data


def with_entries(entries: dict[str, Any], data: bytes, text: str | None = None) -> bytes:
    if text is None:
        text = json.dumps({"format_version": 1})
    return with_header({"__metadata__": {"pyframe": text}, **entries}, data)


def entry(dtype: Any = "F32", shape: Any = (2,), start: Any = 0, stop: Any = 8) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


def test_it_is_a_safetensors_file(tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(small())
    arrays = load_file(tmp_path / "m")
    np.testing.assert_array_equal(arrays["a/b"], np.arange(3, dtype=np.float32))
    assert arrays["c"].dtype == np.int64
    document, ours = content(small())
    assert document["kind"] == "é"
    assert ours["c"] == (np.int64, (2, 1), arrays["c"].tobytes())


def test_arrays_of_every_layout_are_written_as_they_are() -> None:
    grid = np.arange(12, dtype=np.float64).reshape(3, 4)
    arrays = {
        "transposed": grid.T,
        "every second": grid[:, ::2],
        "backwards": grid[::-1],
        "big-endian": grid.astype(">f4"),
        "number": np.array(3.5),
        "empty": np.empty((0, 7), np.float32),
    }
    _, back = content(container.serialize({"format_version": 2}, arrays))
    for name, array in arrays.items():
        dtype, shape, raw = back[name]
        np.testing.assert_array_equal(np.frombuffer(raw, dtype).reshape(shape), array)


def test_no_flipped_bit_passes() -> None:
    data = small()
    assert content(data)
    for position in range(len(data)):
        for bit in range(8):
            damaged = bytearray(data)
            damaged[position] ^= 1 << bit
            with pytest.raises(pf.CheckpointError):
                content(bytes(damaged))
                pytest.fail(f"bit {bit} of byte {position} makes no difference")


def test_no_cut_and_no_addition_passes() -> None:
    data = small()
    for end in range(len(data)):
        with pytest.raises(pf.CheckpointError):
            content(data[:end])
    with pytest.raises(pf.CheckpointError, match="more"):
        content(data + b"\0")


def test_a_flipped_bit_in_the_arrays_of_a_model_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "m"
    pf.Sequential([pf.layers.Dense(2)], input_shape=(3,)).save(path)
    data = bytearray(path.read_bytes())
    data[-1] ^= 4
    path.write_bytes(data)
    with pytest.raises(pf.CheckpointError, match="damaged.*checksum"):
        pf.load(path)


HOSTILE: dict[str, tuple[bytes, str]] = {
    "duplicate array": (
        with_header(b'{"__metadata__":{"pyframe":"{}"},"a":1,"a":2}'),
        "key 'a' twice",
    ),
    "duplicate metadata": (with_header(b'{"__metadata__":{"x":"1","x":"2"}}'), "key 'x' twice"),
    "duplicate in the document": (
        with_entries({}, b"", '{"format_version":1,"format_version":2}'),
        "'format_version' twice",
    ),
    "name above": (with_entries({"../w": entry()}, bytes(8)), r"'\.\./w'"),
    "name within": (with_entries({"a/../../w": entry()}, bytes(8)), "is called"),
    "name from the root": (with_entries({"/etc/passwd": entry()}, bytes(8)), "is called"),
    "name for Windows": (with_entries({"a\\b": entry()}, bytes(8)), "is called"),
    "name with a control character": (with_entries({"a\0b": entry()}, bytes(8)), "is called"),
    "no name": (with_entries({"": entry()}, bytes(8)), "is called"),
    "overlap": (
        with_entries({"a": entry(), "b": entry(start=4, stop=12)}, bytes(12)),
        "'b' overlaps",
    ),
    "the same place": (with_entries({"a": entry(), "b": entry()}, bytes(8)), "overlaps"),
    "gap": (with_entries({"a": entry(), "b": entry(start=12, stop=20)}, bytes(20)), "gap"),
    "gap at the beginning": (with_entries({"a": entry(start=4, stop=12)}, bytes(12)), "gap"),
    "out of range": (with_entries({"a": entry(shape=[2**40], stop=2**42)}, bytes(8)), "cut off"),
    "beyond 64 bits": (with_entries({"a": entry(shape=[2**62], stop=2**64)}, bytes(8)), "offsets"),
    "product beyond 64 bits": (
        with_entries({"a": entry(shape=[2**40, 2**40], stop=8)}, bytes(8)),
        "shape",
    ),
    "empty and endless": (
        with_entries({"a": entry(shape=[0, 2**60, 2**60], stop=0)}, b""),
        "shape",
    ),
    "backwards": (with_entries({"a": entry(start=8, stop=0)}, bytes(8)), "-8 bytes"),
    "negative": (with_entries({"a": entry(start=-8, stop=0)}, bytes(8)), "offsets"),
    "not whole": (with_entries({"a": entry(shape=[2.0])}, bytes(8)), "shape"),
    "true is no number": (with_entries({"a": entry(shape=[True, 2])}, bytes(8)), "shape"),
    "too many axes": (with_entries({"a": entry(shape=[1] * 70 + [2])}, bytes(8)), "shape"),
    "shape of no list": (with_entries({"a": entry(shape="2")}, bytes(8)), "shape"),
    "three offsets": (
        with_entries({"a": {**entry(), "data_offsets": [0, 8, 8]}}, bytes(8)),
        "offsets",
    ),
    "dtype unknown": (with_entries({"a": entry("F8_E4M3")}, bytes(8)), "'F8_E4M3'.*F32"),
    "dtype of no text": (with_entries({"a": entry(["F32"])}, bytes(8)), "dtype"),
    "another size": (with_entries({"a": entry("F64")}, bytes(8)), "in 8 bytes"),
    "odd entry": (with_entries({"a": {**entry(), "code": "x"}}, bytes(8)), "odd entry"),
    "entry of no object": (with_entries({"a": 7}, b""), "odd entry"),
    "list for a header": (with_header(b'[{"a":1}]'), "no saved model"),
    "other encoding": (with_header('{"a": 1}'.encode("utf-16-le")), "no saved model"),
    "bytes that are no text": (with_header(b'{"\xff\xfe": 1}'), "no JSON"),
    "nested deeply": (with_header(b'{"a":' + b"[" * 90_000), "nested too deeply"),
    "document nested deeply": (
        with_entries({}, b"", '{"a":' + '{"a":' * 90_000),
        "nested too deeply",
    ),
    "long number": (with_header(b'{"a":' + b"9" * 10_000 + b"}"), "no JSON"),
    "metadata of numbers": (with_header({"__metadata__": {"pyframe": 3}}), "without the entry"),
    "metadata of no object": (with_header({"__metadata__": "pyframe"}), "without the entry"),
    "version of no number": (with_entries({}, b"", '{"format_version":true}'), "version True"),
    "version zero": (with_entries({}, b"", '{"format_version":0}'), "version 0"),
    "version of the future": (with_entries({}, b"", '{"format_version":3}'), "upgrade pyframe-nn"),
    "no checksum": (with_entries({}, b"", '{"format_version":2}'), "checksum is None"),
    "checksum elsewhere": (
        with_entries({}, b"", json.dumps({"sha256": "0" * 64, "format_version": 2})),
        "does not end with",
    ),
    "checksum of other letters": (
        with_entries({}, b"", json.dumps({"format_version": 2, "sha256": "A" * 64})),
        "checksum is 'AAA",
    ),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_files_are_refused(case: str, tmp_path: Path) -> None:
    data, message = HOSTILE[case]
    (tmp_path / "m").write_bytes(data)
    for read in (pf.load, pf.checkpoint.describe, pf.checkpoint.inspect, pf.Trainer.load):
        with pytest.raises(pf.CheckpointError, match=message) as caught:
            read(tmp_path / "m")
        assert str(tmp_path / "m") in str(caught.value)
        assert len(str(caught.value)) < 600


def giants() -> Iterator[tuple[str, bytes]]:
    """Yield headers that are short, or that are within the limit, and would take much memory."""
    limit, per_value = container.MEMORY_FOR_HEADER, container.BYTES_PER_VALUE
    yield "length without a header", struct.pack("<Q", 2**62) + b"{}"
    yield "spaces", with_header(b"{" + b" " * (90 << 20) + b"}")
    for name, unit in {
        "lists": "[],",
        "objects": '{"k1":{"k2":3}},',
        "texts": '"ab",',
        "numbers": "1.5,",
    }.items():
        marks = sum(unit.count(mark) for mark in ",:[{")
        count = int(0.9 * limit / (per_value * marks + 3 * len(unit)))
        inner = f"[{unit * count}0]"
        yield f"{name} in the header", with_header(f'{{"a":{inner}}}'.encode())
        yield f"{name} in the document", with_entries({}, b"", inner)
    yield "many more objects", with_header(b'{"a":[' + b"{}," * (4 << 20) + b"0]}")
    text = "x" * (15 << 20)
    yield "one text", with_entries({}, b"", json.dumps(text))
    yield "one wide text", with_entries({}, b"", json.dumps(text + "\U0001f600"))
    count = int(0.9 * limit / (3 * 60 + 8 * per_value))
    yield "arrays", with_entries({f"a{i}": entry(shape=[0], stop=0) for i in range(count)}, b"")


def test_memory_stays_small_whatever_the_file_says(tmp_path: Path) -> None:
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("the peak of a process's memory is read from /proc")
    files = dict(giants())
    big = np.zeros(40 << 18, np.float64)  # 80 MB
    whole = container.serialize({"format_version": 2, "nodes": []}, {"a": big})
    files["cut off"] = whole[:-1]
    files["flipped"] = whole[:-1] + b"\1"
    files["no model"] = whole
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    script = """
        import sys
        from pathlib import Path
        import pyframe as pf

        def kilobytes(key):
            lines = Path("/proc/self/status").read_text().splitlines()
            return next(int(line.split()[1]) for line in lines if line.startswith(key + ":"))

        folder = Path(sys.argv[1])
        pf.Sequential([pf.layers.Dense(1)], input_shape=(3,)).save(folder / "small")
        pf.load(folder / "small")  # so that all modules are there
        before = kilobytes("VmRSS")
        for name in sys.argv[2:]:
            Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
            try:
                pf.load(folder / name)
            except pf.CheckpointError:
                print(kilobytes("VmHWM") - before)
            else:
                sys.exit(name + " was loaded")
    """
    command = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path), *files]
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200)
    assert run.returncode == 0, run.stderr
    peaks = map(int, run.stdout.split())
    used = {
        name: (1024 * peak - len(data)) >> 20
        for (name, data), peak in zip(files.items(), peaks, strict=True)
    }
    assert {name: mb for name, mb in used.items() if mb > ALLOWED >> 20} == {}
    assert used["objects in the document"] > 10  # the measurement measures


def test_a_model_that_could_not_be_read_again_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = pf.Sequential([pf.layers.Dense(1)], input_shape=(3,))
    monkeypatch.setattr(container, "MEMORY_FOR_HEADER", 5_000)
    with pytest.raises(pf.CheckpointError, match="too many nodes"):
        model.save(tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


def test_files_of_format_1_still_load() -> None:
    model = pf.load(DATA / "format-1.pyframe")
    assert isinstance(model, pf.Sequential)
    recorded = [[0.2660736, -0.9769011], [0.2937231, 0.9693776], [1.0919950, 0.0104745]]
    np.testing.assert_allclose(model.predict(np.eye(3)), recorded, rtol=0, atol=2e-6)
    report = pf.checkpoint.inspect(DATA / "format-1.pyframe", verify=True)
    assert report["checksum"] == {"sha256": None, "verified": False}
    assert "no checksum" in pf.checkpoint.as_text(report)


def test_an_odd_name_of_a_parameter_stays_and_names_no_path(tmp_path: Path) -> None:
    names = ["../w", "/w", "__metadata__", "training/w", "array_0", "a\\b", ""]
    x = pf.Placeholder("x", shape=(None, 1))
    y: Any = x
    for i, name in enumerate(names):
        y = y * pf.Parameter(np.full(1, i + 1.0), name=name)
    model = pf.Model(x, y)
    model.save(tmp_path / "m")
    assert all(container.is_plain_name(name) for name in load_file(tmp_path / "m"))
    same = pf.load(tmp_path / "m")
    assert same.predict([[1.0]])[0, 0] == 5040
    assert [p.name for p in same.parameters] == [p.name for p in model.parameters]


def test_files_of_others_are_no_models() -> None:
    with pytest.raises(pf.CheckpointError, match="without the entry 'pyframe'"):
        content(save({"a": np.zeros(3)}))


def test_files_of_format_2_load_with_their_training() -> None:
    trainer = pf.Trainer.load(DATA / "format-2.pyframe")
    assert (trainer.epochs_done, trainer.plan.step_count) == (3, 6)
    recorded = [[0.2660736, -0.9769011], [0.2937231, 0.9693776], [1.0919950, 0.0104745]]
    np.testing.assert_allclose(trainer.predict(np.eye(3)), recorded, rtol=0, atol=2e-6)
    stop = pf.callbacks.EarlyStopping("loss", restore_best=False)
    x = np.random.default_rng(0).normal(size=(16, 3))
    history = trainer.fit(
        x, x[:, :2], 5, 8, callbacks=[stop], resume=DATA / "format-2.pyframe", verbose=0
    )
    assert history.epochs == 5


def test_the_checksum_is_what_the_page_says(tmp_path: Path) -> None:
    path = tmp_path / "m"
    pf.Sequential([pf.layers.Dense(2)], input_shape=(3,)).save(path)
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    text = json.loads(data[8 : 8 + length])["__metadata__"]["pyframe"]
    summed, _, rest = text.rpartition(',"sha256":')
    digest = hashlib.sha256(summed.encode())
    for name, array in sorted(load_file(path).items()):
        digest.update(f'["{name}", "<f4", {list(array.shape)}]'.encode() + array.tobytes())
    assert rest == f'"{digest.hexdigest()}"}}'


def test_one_key_twice_among_many_is_found_at_once() -> None:
    # Comparing each with each takes a minute.
    keys = ",".join(f'"a{i}":1' for i in range(60_000))
    header = f'{{{keys},"z":1,"z":2}}'.encode()
    with pytest.raises(pf.CheckpointError, match="key 'z' twice"):
        pf.checkpoint.from_bytes(struct.pack("<Q", len(header)) + header)
