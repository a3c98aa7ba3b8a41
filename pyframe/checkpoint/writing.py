"""Writing a file so that at any moment the old one or the new one is there, whole."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
import uuid
from collections.abc import Iterator
from typing import BinaryIO

from pyframe.errors import ArgumentError, CheckpointError, forgiving, raise_if_signalled

try:
    import fcntl
except ImportError:  # Windows, where a file that is open cannot be removed
    fcntl = None  # type: ignore[assignment]

LONGEST_STEM = 40  # characters of the name, so that the temporary one is not too long


def write_atomically(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file so that at any moment the old one or the new one is there, whole.

    It is written beside its target, flushed to the disk, and then renamed. What a killed process
    has left there is removed by the next one that writes.

    Parameters
    ----------
    path : path-like
        A link is followed. The permissions of a file that is replaced stay.
    data : bytes

    Raises
    ------
    OSError
        If it cannot be written: the error names `path`, and what was there before is unchanged.
    CheckpointError
        If something else than a file is there.

    Examples
    --------
    >>> from pathlib import Path
    >>> write_atomically("note", b"all of it")
    >>> Path("note").read_bytes()
    b'all of it'
    """
    target, folder, stem = _places(path)
    with _naming(path):
        mode = _mode_of(target, path)
        _remove_leftovers(folder, stem)
        with _beside(folder, stem) as (file, temporary):
            if mode is not None:  # before the data, so that only permitted users can read them
                os.chmod(temporary, mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            if fcntl is None:
                file.close()  # Windows renames no file that is open
            os.replace(temporary, target)
        _sync_folder(folder)


def check_writable(path: str | os.PathLike[str]) -> None:
    """Raise now what `write_atomically` would raise later, but for a disk that fills up.

    Examples
    --------
    >>> import os
    >>> from pyframe.checkpoint import check_writable
    >>> check_writable("net.pyframe"), os.path.exists("net.pyframe")
    (None, False)
    """
    target, folder, stem = _places(path)
    with _naming(path):
        _mode_of(target, path)
        with _beside(folder, stem) as (file, temporary):
            file.close()
            os.remove(temporary)


def _places(path: str | os.PathLike[str]) -> tuple[str, str, str]:
    """Return where a path leads, the folder, and how names of temporary files begin there."""
    check_path(path)
    target = os.path.realpath(path) if os.path.islink(path) else os.fspath(path)
    folder, name = os.path.split(target)
    return target, folder or os.curdir, f".{name[:LONGEST_STEM]}."


def check_path(path: str | os.PathLike[str]) -> None:
    """Raise `ArgumentError` for what can be the name of no file."""
    try:
        encoded = os.fsencode(path)
    except (TypeError, UnicodeError) as error:
        raise_if_signalled(error)
        raise ArgumentError(f"{path!r:.200} is the name of no file: {error}") from error
    if not encoded:
        raise ArgumentError(f"{path!r} is the name of no file: it is empty")
    if b"\0" in encoded:
        raise ArgumentError(f"{path!r:.200} is the name of no file: it has a null character in it")


@contextlib.contextmanager
def _naming(path: str | os.PathLike[str]) -> Iterator[None]:
    """Have errors name the file that was asked for, not the one beside it."""
    try:
        yield
    except OSError as error:
        raise_if_signalled(error)
        if error.errno is None:
            raise
        raise OSError(
            error.errno, f"{error.strerror}; what was there before is unchanged", os.fspath(path)
        ) from error


def _mode_of(target: str, path: str | os.PathLike[str]) -> int | None:
    """Return the permissions of the file that will be replaced; None if there is none."""
    try:
        mode = os.stat(target).st_mode
    except FileNotFoundError as error:
        raise_if_signalled(error)
        return None
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "it is a folder", target)
    if not stat.S_ISREG(mode):
        raise CheckpointError(f"{os.fspath(path)} is no regular file, and is not replaced by one")
    return stat.S_IMODE(mode)


@contextlib.contextmanager
def _beside(folder: str, stem: str) -> Iterator[tuple[BinaryIO, str]]:
    """Open a new temporary file, locked; remove it if anything goes wrong."""
    while True:
        temporary = os.path.join(folder, f"{stem}{uuid.uuid4().hex[:12]}.tmp")
        file = open(temporary, "xb")  # noqa: SIM115 - closed below
        try:
            _lock(file, wait=True)
            if os.path.exists(temporary):
                yield file, temporary
                return
            # Another process took it for a leftover between its creation and the lock.
        except BaseException:
            _close_quietly(file)
            with forgiving(OSError):
                os.remove(temporary)
            raise
        finally:
            _close_quietly(file)


def _close_quietly(file: BinaryIO) -> None:
    """Close a file; on a full disk that fails once more, and the first error is the one to tell."""
    with forgiving(OSError):
        file.close()


def _lock(file: BinaryIO, *, wait: bool) -> bool:
    """Lock a file, as long as it is open; return whether that worked."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError as error:  # somebody else has it, or the file system knows no locks
        raise_if_signalled(error)
        return False
    return True


def _remove_leftovers(folder: str, stem: str) -> None:
    """Remove the temporary files of processes that are gone: those that are not locked."""
    with forgiving(OSError), os.scandir(folder) as found:
        for entry in found:
            if not re.fullmatch(rf"{re.escape(stem)}[0-9a-f]{{12}}\.tmp", entry.name):
                continue
            with forgiving(OSError):
                if fcntl is None:
                    os.remove(entry.path)
                    continue
                with open(entry.path, "rb") as file:
                    if _lock(file, wait=False):
                        os.remove(entry.path)


def _sync_folder(folder: str) -> None:
    """Flush a folder, so that the new name, too, is on the disk."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        raise_if_signalled(error)
        if error.errno != errno.EINVAL:  # some file systems cannot do it for folders
            raise
    finally:
        os.close(descriptor)
