"""Checks of a plugin's shared library: its target machine, and its table of kernels.

The loader of an operating system merely calls a library for another machine "invalid", and may
crash the process on a truncated one. So the headers are read here, and an unsuitable library is
never opened: ELF (Linux and its like), Mach-O (macOS) and PE (Windows); see ``elf.h``,
``mach-o/loader.h`` and Microsoft's "PE Format".
"""

from __future__ import annotations

import functools
import os
import platform
import re
import struct
from collections.abc import Sequence
from typing import NamedTuple

from pyframe.errors import PluginError, raise_if_signalled


class Target(NamedTuple):
    """The kind of machine that a library is for."""

    system: str
    architecture: str

    def __str__(self) -> str:
        return f"{self.system} on {self.architecture}"


ELF_SYSTEMS = {0: "Linux", 2: "NetBSD", 3: "Linux", 6: "Solaris", 9: "FreeBSD", 12: "OpenBSD"}
ELF_MACHINES = {
    3: "x86",
    8: "MIPS",
    20: "PowerPC",
    21: "PowerPC",
    22: "S/390",
    40: "ARM",
    62: "x86-64",
    183: "aarch64",
    243: "RISC-V",
    258: "LoongArch",
}
ELF_KINDS = {1: "an object file", 2: "a program", 4: "a core dump"}
ELF_SHARED = 3
ELF_LOADED = 1
MACH_MACHINES = {7: "x86", 12: "ARM", 0x01000007: "x86-64", 0x0100000C: "aarch64"}
MACH_KINDS = {1: "an object file", 2: "a program"}
MACH_SHARED = (6, 8)  # a dynamic library, a bundle
PE_MACHINES = {0x014C: "x86", 0x01C4: "ARM", 0x8664: "x86-64", 0xAA64: "aarch64"}
PE_SHARED = 0x2000
MACHINE_NAMES = {"amd64": "x86-64", "x86_64": "x86-64", "arm64": "aarch64"}


class _NoLibraryError(Exception):
    """A file is no shared library; the message says what it is."""


def read_targets(path: str) -> list[Target]:
    """Return the targets of a shared library; several for a universal one of macOS.

    Raises
    ------
    PluginError
        If the file does not exist, is no shared library, or is truncated.

    Examples
    --------
    >>> from pyframe.native import core
    >>> read_targets(core.CORE_PATH) != []
    True
    """
    if os.path.isdir(path):
        raise PluginError(f"{path} is a folder; a plugin names the shared library itself")
    if not os.path.isfile(path):
        raise PluginError(
            f"there is no shared library {path}; install the plugin again, which builds it"
        )
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        raise_if_signalled(error)
        raise PluginError(f"{path} cannot be read: {error.strerror}") from error
    try:
        return _targets(data)
    except _NoLibraryError as error:
        raise PluginError(f"{path} is no shared library: it is {error}") from None
    except (struct.error, IndexError) as error:
        raise_if_signalled(error)
        raise PluginError(
            f"{path} ends in the middle of its header, after {len(data)} bytes; install the plugin "
            "again"
        ) from None


def refuse_foreign(path: str, own: str) -> None:
    """Raise `PluginError` unless a shared library has the same target as another one.

    Parameters
    ----------
    path : str
        Of the library.
    own : str
        Path of one that has been loaded.
    """
    here = _targets_of_own(own)
    if len(here) > 1:
        machine = platform.machine().lower()
        running = MACHINE_NAMES.get(machine, machine)
        here = [target for target in here if target.architecture == running] or here
    found = read_targets(path)
    if not set(found) & set(here):
        raise PluginError(
            f"{path} is for {' and '.join(map(str, found))}, and this process runs {here[0]}; "
            "install the wheel of the plugin that is for this machine"
        )


_targets_of_own = functools.cache(read_targets)


def _targets(data: bytes) -> list[Target]:
    if not data:
        raise _NoLibraryError("empty")
    if data.startswith(b"\x7fELF"):
        return [_elf_target(data)]
    if data.startswith(b"MZ"):
        return [_pe_target(data)]
    magic = data[:4]
    if magic in (b"\xcf\xfa\xed\xfe", b"\xce\xfa\xed\xfe"):
        return [_mach_target(data, 0)]
    if magic in (b"\xca\xfe\xba\xbe", b"\xca\xfe\xba\xbf"):
        return _universal_targets(data)
    if data.startswith(b"!<arch>\n"):
        raise _NoLibraryError("an archive of object files, for linking")
    raise _NoLibraryError(f"a file that begins with {data[:16]!r}")


def _elf_target(data: bytes) -> Target:
    wide, order = data[4] == 2, ">" if data[5] == 2 else "<"
    kind, machine = struct.unpack_from(order + "HH", data, 16)
    if kind != ELF_SHARED:
        raise _NoLibraryError(ELF_KINDS.get(kind, f"an ELF file of type {kind}"))
    # The table of segments: the file must contain all that is mapped into memory.
    start = struct.unpack_from(order + ("Q" if wide else "I"), data, 32 if wide else 28)[0]
    each, count = struct.unpack_from(order + "HH", data, 54 if wide else 42)
    end = 0
    for i in range(count):
        row = start + i * each
        (kind,) = struct.unpack_from(order + "I", data, row)
        if wide:
            offset, _, _, size = struct.unpack_from(order + "4Q", data, row + 8)
        else:
            offset, _, _, size = struct.unpack_from(order + "4I", data, row + 4)
        end = max(end, offset + size) if kind == ELF_LOADED else end
    if end > len(data):
        raise _NoLibraryError(f"the first {len(data)} bytes of one that has at least {end}")
    name = ELF_MACHINES.get(machine, f"machine {machine}")
    if machine in (8, 20, 21, 22, 243, 258):  # one name for both widths
        name += " (64-bit)" if wide else " (32-bit)"
    elif machine == 62 and not wide:
        name = "x86-64 with 32-bit pointers"
    if order == ">" and machine != 22:
        name += ", big-endian"
    return Target(ELF_SYSTEMS.get(data[7], f"ELF system {data[7]}"), name)


def _mach_target(data: bytes, at: int) -> Target:
    machine, _, kind = struct.unpack_from("<iiI", data, at + 4)
    if kind not in MACH_SHARED:
        raise _NoLibraryError(MACH_KINDS.get(kind, f"a Mach-O file of type {kind}"))
    return Target("macOS", MACH_MACHINES.get(machine, f"machine {machine:#x}"))


def _universal_targets(data: bytes) -> list[Target]:
    wide = data[3] == 0xBF
    (count,) = struct.unpack_from(">I", data, 4)
    if count > 30:  # compiled Java begins with the same four bytes, followed by its version
        raise _NoLibraryError("compiled Java")
    found = []
    for i in range(count):
        if wide:
            offset = struct.unpack_from(">Q", data, 8 + 32 * i + 8)[0]
        else:
            offset = struct.unpack_from(">I", data, 8 + 20 * i + 8)[0]
        found.append(_mach_target(data, offset))
    return found


def _pe_target(data: bytes) -> Target:
    (at,) = struct.unpack_from("<I", data, 0x3C)
    if data[at : at + 4] != b"PE\0\0":
        raise _NoLibraryError("a program for DOS")
    (machine,) = struct.unpack_from("<H", data, at + 4)
    (flags,) = struct.unpack_from("<H", data, at + 22)
    if not flags & PE_SHARED:
        raise _NoLibraryError("a program for Windows")
    return Target("Windows", PE_MACHINES.get(machine, f"machine {machine:#x}"))


def same_file(path: str, other: str) -> bool:
    """Return whether two paths lead to the same file; False if either does not exist."""
    try:
        return os.path.samefile(path, other)
    except OSError as error:
        raise_if_signalled(error)
        return False


# ---- the table of kernels ----

ISAS = ("baseline", "avx2", "avx512", "neon")
LONGEST_NAME = 100


class KernelRow(NamedTuple):
    """A row of a plugin's table as it was read; None for NULL."""

    name: str | None
    isa: str | None
    bits: int
    flags: int
    address: int


def check_name(name: str | None, what: str) -> str:
    """Return a name that is an identifier.

    Raises
    ------
    PluginError
        Otherwise, beginning with `what` it is.
    """
    if name is None:
        raise PluginError(f"{what} is NULL")
    if len(name) > LONGEST_NAME:
        raise PluginError(f"{what} is longer than {LONGEST_NAME} bytes: {name[:40]!r}...")
    if not re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII):
        raise PluginError(f"{what} is {name!r}; it must be an identifier, as in C")
    return name


def check_kernels(rows: Sequence[KernelRow], path: str) -> dict[tuple[str, int], dict[str, int]]:
    """Return the addresses in a table by (name, bits), then instruction set.

    Raises
    ------
    PluginError
        If a row contradicts the header, occurs twice, or lacks a kernel for the baseline.
    """
    found: dict[tuple[str, int], dict[str, int]] = {}
    for i, row in enumerate(rows):
        where = f"{path}: kernel {i}"
        name = check_name(row.name, f"{where}: its name")
        where = f"{where} ({name})"
        if row.isa not in ISAS:
            raise PluginError(f"{where} is for the isa {row.isa!r}; there are {', '.join(ISAS)}")
        if row.bits not in (32, 64):
            raise PluginError(f"{where} is for elements of {row.bits} bits; it must be 32 or 64")
        if row.flags:
            raise PluginError(f"{where} has flags {row.flags:#x}, and this pyframe knows none")
        if not row.address:
            raise PluginError(f"{where} for {row.isa}, {row.bits} bits: its function is NULL")
        variants = found.setdefault((name, row.bits), {})
        if row.isa in variants:
            raise PluginError(f"{where} for {row.isa}, {row.bits} bits, is there twice")
        variants[row.isa] = row.address
    for (name, bits), variants in found.items():
        if "baseline" not in variants:
            raise PluginError(
                f"{path}: the kernel {name} for {bits} bits is there for {', '.join(variants)}, "
                "but not for baseline, which is what every machine runs"
            )
    return found
