"""Downloads, from a server on this machine."""

from __future__ import annotations

import gzip
import hashlib
import struct
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pyframe as pf
from pyframe.datasets import fetching
from pyframe.errors import DatasetError

pytestmark = pytest.mark.once

CONTENT = bytes(range(256)) * 1000
SUM = hashlib.sha256(CONTENT).hexdigest()


class Server:
    """Serves some files, and counts how often it was asked."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {"/data.bin": CONTENT}
        self.asked: list[str] = []
        self.cut = False
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append(self.path)
                content = outer.files.get(self.path)
                if content is None:
                    self.send_error(404)
                    return
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content[: len(content) // 2] if outer.cut else content)

            def log_message(self, *arguments: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    thread = threading.Thread(target=made.http.serve_forever)
    thread.start()
    yield made
    made.http.shutdown()
    made.http.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PYFRAME_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_file_is_downloaded_once(server: Server, cache: Path, capfd: Any) -> None:
    for _ in range(2):
        path = pf.datasets.fetch(f"{server.url}/data.bin", SUM.upper())
        assert path == cache / "data.bin" and path.read_bytes() == CONTENT
    assert server.asked == ["/data.bin"]
    assert "data" in capfd.readouterr().err
    path.write_bytes(b"damaged")
    pf.datasets.fetch(f"{server.url}/data.bin", SUM, verbose=0)
    assert path.read_bytes() == CONTENT and len(server.asked) == 2
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("other", "SHA-256 .* instead of"),
        ("absent", "cannot be downloaded to .*404"),
        ("cut", "ended after|cannot be downloaded"),
        ("offline", "cannot be downloaded.*put the file there by hand"),
        ("no url", "cannot be downloaded"),
    ],
)
def test_what_goes_wrong_leaves_what_was_there(
    server: Server, cache: Path, fault: str, says: str
) -> None:
    cache.mkdir()
    (cache / "data.bin").write_bytes(b"before")
    url = f"{server.url}/data.bin"
    if fault == "other":
        server.files["/data.bin"] = b"another"
    elif fault == "absent":
        server.files.clear()
    elif fault == "cut":
        server.cut = True
    elif fault == "offline":
        url = "http://127.0.0.1:1/data.bin"
    else:
        url = "data.bin"
    with pytest.raises(DatasetError, match=says):
        pf.datasets.fetch(url, SUM, verbose=0)
    assert [p.name for p in cache.iterdir()] == ["data.bin"]
    assert (cache / "data.bin").read_bytes() == b"before"


def test_the_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("PYFRAME_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert fetching.cache_folder() == tmp_path / "xdg" / "pyframe"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(fetching.Path, "home", lambda: tmp_path)
    assert fetching.cache_folder() == tmp_path / ".cache" / "pyframe"

    def nowhere() -> Path:
        raise RuntimeError("no home")

    monkeypatch.setattr(fetching.Path, "home", nowhere)
    with pytest.raises(DatasetError, match="PYFRAME_CACHE"):
        fetching.cache_folder()


def test_mnist_from_a_mirror(server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sums = {}
    for part in ("train", "t10k"):
        for kind, shape in (("images-idx3", (5, 28, 28)), ("labels-idx1", (5,))):
            header = bytes([0, 0, 8, len(shape)]) + struct.pack(f">{len(shape)}I", *shape)
            name = f"{part}-{kind}-ubyte.gz"
            content = gzip.compress(header + np.ones(shape, np.uint8).tobytes())
            server.files[f"/mnist/{name}"] = content
            sums[name] = hashlib.sha256(content).hexdigest()
    monkeypatch.setattr(fetching, "MNIST_FILES", sums)
    train, test = pf.datasets.fetch_mnist(url=f"{server.url}/mnist/", verbose=0)
    assert train.images.shape == (5, 28, 28, 1) and len(test) == 5
    assert len(list((cache / "mnist").iterdir())) == 4
