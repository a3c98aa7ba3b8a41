"""Saving: at any moment the old file or the new one is there, whole; errors name the target."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest

import pyframe as pf
from pyframe.checkpoint import writing

pytestmark = pytest.mark.once

OLD, NEW = b"old" * 1000, b"new" * 2000


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "model.pyframe"
    path.write_bytes(OLD)
    return path


def child(script: str, *arguments: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)


def only(file: Path) -> bool:
    return [p.name for p in file.parent.iterdir()] == [file.name]


def test_a_file_is_written_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "new"
    for data in (OLD, NEW, b""):
        writing.write_atomically(path, data)
        assert path.read_bytes() == data
        assert only(path)


@pytest.mark.parametrize("function", ["open", "write", "fsync", "replace"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EIO])
def test_a_failure_leaves_the_old_file_and_names_it(
    function: str, number: int, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain_open = open

    def fail(*arguments: Any) -> None:
        raise OSError(number, os.strerror(number), "some temporary name")

    def opened(path: Any, mode: str = "r", *rest: Any, **options: Any) -> Any:
        if function == "open":
            fail()
        stream = plain_open(path, mode, *rest, **options)
        if "x" in mode:
            stream = Failing(stream)
        return stream

    class Failing:
        def __init__(self, stream: Any) -> None:
            self.stream = stream

        def write(self, data: bytes) -> None:
            self.stream.write(data[:10])
            fail()

        def __getattr__(self, name: str) -> Any:
            return getattr(self.stream, name)

    if function in ("open", "write"):
        monkeypatch.setattr("builtins.open", opened)
    else:
        monkeypatch.setattr(os, function, fail)
    with pytest.raises(OSError) as caught:
        writing.write_atomically(file, NEW)
    monkeypatch.undo()
    assert caught.value.errno == number
    assert isinstance(caught.value, PermissionError) == (number == errno.EACCES)
    assert caught.value.filename == str(file)
    assert "some temporary name" not in str(caught.value)
    assert "unchanged" in str(caught.value)
    assert file.read_bytes() == OLD
    assert only(file)


def test_a_full_disk_leaves_the_old_file(file: Path) -> None:
    pytest.importorskip("resource")
    script = """
        import resource, sys
        import pyframe as pf
        model = pf.Sequential([pf.layers.Dense(500)], input_shape=(500,))
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
        try:
            model.save(sys.argv[1])
        except OSError as error:
            print(error.filename)
    """
    run = child(script, file)
    assert run.stdout.strip() == str(file)
    assert file.read_bytes() == OLD
    assert only(file)


def test_a_folder_that_one_may_not_write_to(file: Path) -> None:
    if not hasattr(os, "geteuid"):
        pytest.skip("needs POSIX permissions")
    script = """
        import os, sys
        from pathlib import Path
        import pyframe as pf
        model = pf.Sequential([pf.layers.Dense(5)], input_shape=(5,))
        pf.checkpoint.to_bytes(model.architecture)  # so that all modules are there
        folder = Path(sys.argv[1]).parent
        os.chdir(folder)
        folder.chmod(0o555)
        if os.geteuid() == 0:
            os.setuid(65534)
        try:
            model.save(Path(sys.argv[1]).name)
        except PermissionError as error:
            print(error.filename)
    """
    run = child(script, file)
    file.parent.chmod(0o755)
    assert run.stdout.strip() == file.name, run.stderr
    assert file.read_bytes() == OLD
    assert only(file)


@pytest.mark.parametrize("name", ["no such folder/m", "."])
def test_a_target_that_cannot_be_is_named(name: str, tmp_path: Path) -> None:
    with pytest.raises(OSError) as caught:
        writing.write_atomically(tmp_path / name, NEW)
    assert caught.value.filename == str(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_pipe_is_not_replaced(tmp_path: Path) -> None:
    if not hasattr(os, "mkfifo"):
        pytest.skip("needs named pipes")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(pf.CheckpointError, match="no regular file"):
        writing.write_atomically(tmp_path / "pipe", NEW)
    assert (tmp_path / "pipe").is_fifo()
    assert only(tmp_path / "pipe")


def test_a_long_name_is_no_hindrance(tmp_path: Path) -> None:
    path = tmp_path / ("ü" * 120)  # 240 bytes of the 255 that are possible
    try:
        path.write_bytes(OLD)
    except OSError:
        pytest.skip("this file system takes no such name")
    writing.write_atomically(path, NEW)
    assert path.read_bytes() == NEW
    assert only(path)


def test_a_link_and_the_permissions_stay(file: Path) -> None:
    link = file.with_name("link")
    link.symlink_to(file)
    file.chmod(0o640)
    writing.write_atomically(link, NEW)
    assert link.is_symlink()
    assert file.stat().st_mode & 0o777 == 0o640
    assert file.read_bytes() == NEW


# ---- processes that are killed ----


@pytest.mark.parametrize("moment", ["write", "fsync", "replace"])
def test_a_crash_leaves_the_old_file_and_the_next_one_cleans_up(moment: str, file: Path) -> None:
    script = """
        import builtins, os, sys
        from pyframe.checkpoint.writing import write_atomically
        moment = sys.argv[2]
        if moment == "write":
            plain = builtins.open
            def half(path, mode="r", *rest, **options):
                file = plain(path, mode, *rest, **options)
                if "x" in mode:
                    file.write(b"half of it")
                    file.flush()
                    os._exit(9)
                return file
            builtins.open = half
        else:
            setattr(os, moment, lambda *a: os._exit(9))
        write_atomically(sys.argv[1], b"new")
    """
    assert child(script, file, moment).returncode == 9
    assert file.read_bytes() == OLD
    assert len(list(file.parent.iterdir())) == 2
    writing.write_atomically(file, NEW)
    assert file.read_bytes() == NEW
    assert only(file)


def test_the_file_of_a_process_that_is_still_writing_stays(file: Path) -> None:
    fcntl = pytest.importorskip("fcntl", reason="this system has no locks of this kind")
    other = file.with_name(f".{file.name}.0123456789ab.tmp")
    stranger = file.with_name(f".{file.name}.notes.tmp")
    stranger.write_bytes(b"")
    with open(other, "xb") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            pytest.skip("this file system has no locks")
        writing.write_atomically(file, NEW)
        assert other.exists()
    writing.write_atomically(file, OLD)
    assert not other.exists()
    assert stranger.exists()


def test_it_works_without_locks(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "fcntl", None)  # as on Windows
    left = file.with_name(f".{file.name}.0123456789ab.tmp")
    left.write_bytes(b"")
    writing.write_atomically(file, NEW)
    assert file.read_bytes() == NEW
    assert only(file)


def test_killed_at_any_moment_one_of_the_two_is_there(file: Path) -> None:
    if not hasattr(signal, "SIGKILL"):
        pytest.skip("needs SIGKILL")
    script = """
        import sys
        from pyframe.checkpoint.writing import write_atomically
        print("ready", flush=True)
        while True:
            for fill in (b"a", b"b"):
                write_atomically(sys.argv[1], fill * 3_000_000)
    """
    file.write_bytes(b"b" * 3_000_000)
    chance = random.Random(0)
    seen = set()
    for _ in range(8):
        command = [sys.executable, "-c", textwrap.dedent(script), str(file)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as run:
            assert run.stdout is not None
            assert run.stdout.readline() == b"ready\n"
            time.sleep(chance.uniform(0.0, 0.05))
            run.kill()
        data = file.read_bytes()
        assert len(data) == 3_000_000
        assert len(set(data)) == 1
        seen.add(data[:1])
        leftovers = [p for p in file.parent.iterdir() if p != file]
        assert len(leftovers) <= 1, "what the one before had left was to be removed"
    writing.write_atomically(file, NEW)
    assert only(file)


def test_two_at_once_leave_one_whole_file(file: Path) -> None:
    script = """
        import sys
        from pyframe.checkpoint.writing import write_atomically
        for _ in range(200):
            write_atomically(sys.argv[1], sys.argv[2].encode() * 1000)
    """
    command = [sys.executable, "-c", textwrap.dedent(script), str(file)]
    runs = [subprocess.Popen([*command, fill]) for fill in "abc"]
    with contextlib.ExitStack() as stack:
        for run in runs:
            stack.enter_context(run)
    assert [run.returncode for run in runs] == [0, 0, 0]
    assert file.read_bytes() in (b"a" * 1000, b"b" * 1000, b"c" * 1000)
    assert only(file)


@pytest.mark.skipif(os.name == "nt", reason="Windows has other permissions")
def test_a_private_file_is_private_while_it_is_written(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.chmod(0o600)
    modes = []
    sync = os.fsync

    def noted(descriptor: int) -> None:
        modes.append(os.fstat(descriptor).st_mode & 0o777)
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    writing.write_atomically(file, NEW)
    assert modes[0] == 0o600
