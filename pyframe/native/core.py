"""The only interface to the C core: no other module imports cffi or the extension."""

from __future__ import annotations

import contextlib
import functools
import importlib
import itertools
import os
import sys
import warnings
from collections.abc import Callable, Collection, Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pyframe.errors import ArgumentError, PluginError
from pyframe.native.libraries import (
    LONGEST_NAME,
    KernelRow,
    check_kernels,
    check_name,
    refuse_foreign,
    same_file,
)

PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

try:
    _core: Any = importlib.import_module("pyframe._core")
except ModuleNotFoundError as error:
    if not os.path.isdir(PACKAGE):
        raise ImportError(
            f"pyframe was found within an archive, {os.path.dirname(PACKAGE)}, "
            "and the system loads no compiled library from there: unpack it into a folder, or "
            "install the wheel with 'pip install'"
        ) from error
    raise ImportError(
        f"the C core is missing in {PACKAGE}: this is a source tree that has not been built. "
        "Run 'pip install -e .' in it, or start Python in another folder to get the installed "
        "package"
    ) from error

ffi: Any = _core.ffi
lib: Any = _core.lib

CORE_PATH: str = _core.__file__


def newer_sources(folder: str, built: str) -> list[str]:
    """Return the C sources below a folder that were changed after a file was built.

    Folders in which builds are made are left out.
    """
    age = os.stat(built).st_mtime
    found = []
    for place, folders, names in os.walk(folder):
        folders[:] = [f for f in folders if f not in ("build", "dist") and not f.startswith(".")]
        for name in names:
            is_source = name.endswith((".c", ".h", ".inc", "CMakeLists.txt"))
            if is_source and os.stat(os.path.join(place, name)).st_mtime > age:
                found.append(name)
    return sorted(found)


# Beside an editable install stand the sources of its core; elsewhere this folder does not exist.
_SOURCES = os.path.join(os.path.dirname(PACKAGE), "core_c")
if os.path.isdir(_SOURCES) and (_changed := newer_sources(_SOURCES, CORE_PATH)):
    warnings.warn(
        f"the C core is older than {', '.join(_changed)}; run 'pip install -e .' again, "
        "which compiles what has changed",
        stacklevel=2,
    )

MAX_NDIM: int = lib.PF_MAX_NDIM
TYPE_CODES = {"i": lib.PF_INT, "u": lib.PF_UINT, "f": lib.PF_FLOAT}

# The tables that describe a program, laid out as in core_c/plan.inc.
VALUE_DTYPE = np.dtype(
    [
        ("offset", "i8"),
        ("bytes", "i8"),
        ("dims_at", "i8"),
        ("base", "i4"),
        ("ndim", "i4"),
        ("type_code", "u1"),
        ("type_bits", "u1"),
        ("reserved", "u2"),
        ("reserved2", "u4"),
    ]
)
INSTRUCTION_DTYPE = np.dtype(
    [
        ("kernel", "u8"),
        ("stream", "u8"),
        ("accumulate", "u8"),
        ("slots_at", "i8"),
        ("attributes_at", "i8"),
        ("scratch_bytes", "i8"),
        ("work", "i8"),
        ("flags", "u4"),
        ("attribute_size", "u4"),
        ("input_count", "u4"),
        ("output_count", "u4"),
        ("state_count", "u4"),
        ("group", "u4"),
        ("elements", "i8"),
        ("block", "i8"),
        ("blocks", "i8"),
        ("chunks", "i8"),
        ("lane_bytes", "i8"),
        ("by_row", "u8"),
    ]
)


def struct_size(name: str) -> int:
    """Return the size in bytes of a C struct, 0 for an unknown name."""
    return int(lib.pf_struct_size(name.encode()))


for _name, _dtype in (("pf_value", VALUE_DTYPE), ("pf_instruction", INSTRUCTION_DTYPE)):
    if struct_size(_name) != _dtype.itemsize:
        raise ImportError(
            f"the C core's {_name} has {struct_size(_name)} bytes, the Python side's "
            f"{_dtype.itemsize}: the two come from different versions; reinstall pyframe-nn"
        )


def activations() -> tuple[str, ...]:
    """Return the activations that a matrix product can apply, each at the index of its code."""
    names = map(lib.pf_activation_name, itertools.count())
    return tuple(ffi.string(name).decode() for name in itertools.takewhile(bool, names))


def instruction_sets() -> list[str]:
    """Return the instruction sets that this core holds and this machine runs, the best one last."""
    names = (ffi.string(lib.pf_isa_name(i)).decode() for i in range(lib.pf_isa_count()))
    return [name for i, name in enumerate(names) if lib.pf_isa_runs(i)]


def instruction_set() -> str:
    """Return the instruction set in use."""
    name: str = ffi.string(lib.pf_isa_name(lib.pf_selected_isa())).decode()
    return name


def choose_instruction_set(wanted: str | None) -> str:
    """Return the set to use: the requested one, otherwise the best that runs here.

    Raises
    ------
    ArgumentError
        If the machine, or this build of the core, does not have the requested one.
    """
    usable = instruction_sets()
    if wanted and wanted not in usable:
        raise ArgumentError(
            f"PYFRAME_ISA={wanted}: this machine and this build of pyframe have "
            f"{', '.join(usable)}; set one of these, or unset the variable for the best of them"
        )
    return wanted or usable[-1]


def _isa_number(name: str) -> int:
    for i in range(lib.pf_isa_count()):
        if ffi.string(lib.pf_isa_name(i)).decode() == name:
            return i
    raise ArgumentError(f"there is no instruction set {name!r}; use one of {instruction_sets()}")


lib.pf_select_isa(_isa_number(choose_instruction_set(os.environ.get("PYFRAME_ISA"))))


@contextlib.contextmanager
def using_instruction_set(name: str) -> Iterator[None]:
    """Use another instruction set in this process, for a test: plans made inside call its kernels.

    Parameters
    ----------
    name : str
        One of those that run here.
    """
    before = lib.pf_selected_isa()
    lib.pf_select_isa(_isa_number(name))
    try:
        yield
    finally:
        lib.pf_select_isa(before)


def find_kernel(name: str, bits: int, isa: str | None = None) -> int:
    """Return the address of a kernel, 0 when there is none.

    It belongs to the instruction set in use, unless another one is named; call it only where
    that set runs.

    Parameters
    ----------
    name : str
        Of a built-in one, or ``<library>:<name>`` of one that a plugin's library brings.
    bits : {32, 64}
        Of its elements.
    """
    number = lib.pf_selected_isa() if isa is None else _isa_number(isa)
    library, _, kernel = name.rpartition(":")
    if not library:
        return _find_built_in(name, bits, number)
    if library not in open_libraries and on_unknown_library is not None:
        on_unknown_library(library)
    if library not in open_libraries:
        return 0
    # The last one of those that run here: instruction sets are numbered from the plain one up.
    found = open_libraries[library].kernels.get((kernel, bits), {})
    return max(((n, address) for n, address in found.items() if n <= number), default=(0, 0))[1]


def kernel_sets(name: str) -> list[str]:
    """Return the instruction sets that a kernel of a plugin is compiled for, this machine's or not.

    Parameters
    ----------
    name : str
        ``<library>:<name>``, of a library that is open; of any other there are none.
    """
    library, _, kernel = name.rpartition(":")
    rows = open_libraries[library].kernels.items() if library in open_libraries else ()
    numbers = {n for (each, _), variants in rows if each == kernel for n in variants}
    return [ffi.string(lib.pf_isa_name(n)).decode() for n in sorted(numbers)]


def peak_loops(bits: int, isa: str | None = None) -> Any:
    """Return the loops that are timed for the peaks of an instruction set; default: the one in use.

    Parameters
    ----------
    bits : {32, 64}
        Of their elements.
    """
    number = lib.pf_selected_isa() if isa is None else _isa_number(isa)
    return lib.pf_find_peaks(number, bits)


@functools.cache
def _find_built_in(name: str, bits: int, number: int) -> int:
    return int(ffi.cast("uintptr_t", lib.pf_find_kernel(number, name.encode(), bits)))


class Library(NamedTuple):
    """A plugin's shared library: addresses of its kernels by (name, bits), then instruction set."""

    name: str
    path: str
    abi: tuple[int, int]
    kernels: dict[tuple[str, int], dict[int, int]]


open_libraries: dict[str, Library] = {}  # by name
on_unknown_library: Callable[[str], None] | None = None  # set by pyframe.plugins: may open it


def open_library(path: str | os.PathLike[str]) -> Library:
    """Open a plugin's shared library, and make its kernels known as ``<library>:<name>``.

    A library that is open already is left alone. Its file is checked before any of its code runs.

    Raises
    ------
    PluginError
        If it cannot be opened, is for another machine, has no ``pyframe_plugin``, was built for
        another version of the kernel interface, describes its kernels in a wrong way, or has a name
        that another library has.
    """
    path = os.path.abspath(os.fsdecode(path))
    for library in open_libraries.values():
        if os.path.exists(path) and same_file(path, library.path):
            return library
    refuse_foreign(path, CORE_PATH)
    error, before = ffi.new("char const **"), odd_arithmetic()
    handle = lib.pf_library_open(os.fsencode(path), error)
    if handle == ffi.NULL:
        reason = ffi.string(error[0]).decode(errors="replace")
        raise PluginError(f"{path} cannot be opened: {reason}")
    try:
        if odd := "" if before else odd_arithmetic():
            restore_arithmetic()
            raise PluginError(
                f"{path}: opening it changes how the whole process computes: {odd}. Is it linked "
                "with -ffast-math? Leave that away"
            )
        library = _read_plugin(handle, path)
        known = open_libraries.get(library.name)
        if known is not None:
            raise PluginError(
                f"{path} and {known.path} are both called {library.name!r}, and their kernels "
                "could not be told apart; give one of them another name, or uninstall it"
            )
    except PluginError:
        lib.pf_library_close(handle)
        raise
    open_libraries[library.name] = library
    return library


_SMALLEST, _SMALL = 2.0**-1022, 2.0**-60  # the smallest normal number, and half an ulp of 1 by far


def odd_arithmetic() -> str:
    """Return how this thread computes otherwise than is usual; empty if it does not."""
    if _SMALLEST / 2 == 0:
        return "numbers below the smallest normal one count as 0"
    if 1 + _SMALL != 1 or 1 - _SMALL != 1:
        return "results are not rounded to the nearest number"
    return ""


def restore_arithmetic() -> None:
    """Have this thread compute as is usual, where it is known how to do that."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).fesetenv(ctypes.c_void_p(-1))  # FE_DFL_ENV


# The smallest valid sizes: those of the structs in the first version.
_OLDEST_PLUGIN = ffi.offsetof("pf_plugin", "kernel_size") + 4
_OLDEST_ROW = ffi.offsetof("pf_plugin_kernel", "kernel") + ffi.sizeof("pf_kernel")
_MOST_KERNELS = 100_000  # a larger number is garbage


def _read_plugin(handle: Any, path: str) -> Library:
    """Ask an open library for its table, check it, and return what it says."""
    has_entry = ffi.new("int *")
    plugin = lib.pf_library_plugin(handle, has_entry)
    if not has_entry[0]:
        raise PluginError(
            f"{path} exports no function pyframe_plugin: it is no plugin's library, or its build "
            "hides the function, which PF_EXPORT in pyframe.h would not"
        )
    if plugin == ffi.NULL:
        raise PluginError(f"{path}: its pyframe_plugin returned NULL: it cannot run here")
    host = lib.pf_get_host()
    major, minor = int(plugin.abi_major), int(plugin.abi_minor)
    built, here = f"{major}.{minor}", f"{host.abi_major}.{host.abi_minor}"
    if major != host.abi_major:
        raise PluginError(
            f"{path} was built for version {built} of the kernel interface, and this pyframe has "
            f"{here}: another major version; build it again with the headers of this pyframe"
        )
    if minor > host.abi_minor:
        raise PluginError(
            f"{path} needs version {built} of the kernel interface, and this pyframe has {here}; "
            "install a newer pyframe-nn, or build it with a lower PF_TARGET_MINOR"
        )
    if plugin.size < _OLDEST_PLUGIN:
        raise PluginError(
            f"{path}: its pf_plugin says that it has {plugin.size} bytes, and it has at least "
            f"{_OLDEST_PLUGIN}; begin it with PF_PLUGIN_HEAD"
        )
    name = check_name(_text(plugin.name), f"{path}: the name of its pf_plugin")
    return Library(name, path, (major, minor), _read_kernels(plugin, path))


def _read_kernels(plugin: Any, path: str) -> dict[tuple[str, int], dict[int, int]]:
    """Return addresses by (name, bits), then number of the instruction set."""
    count, each = int(plugin.kernel_count), int(plugin.kernel_size)
    if each < _OLDEST_ROW or each % ffi.alignof("pf_plugin_kernel"):
        raise PluginError(
            f"{path}: kernel_size is {each}, and a pf_plugin_kernel has at least {_OLDEST_ROW} "
            "bytes; write sizeof(pf_plugin_kernel)"
        )
    if count > _MOST_KERNELS or (count and plugin.kernels == ffi.NULL):
        table = "NULL" if plugin.kernels == ffi.NULL else "a table"
        raise PluginError(f"{path}: kernel_count is {count}, and kernels is {table}")
    rows = []
    for i in range(count):
        row = ffi.cast("pf_plugin_kernel *", ffi.cast("char *", plugin.kernels) + i * each)
        address = int(ffi.cast("uintptr_t", row.kernel))
        rows.append(KernelRow(_text(row.name), _text(row.isa), row.bits, row.flags, address))
    # Instruction sets of other kinds of machines are skipped.
    numbers = {ffi.string(lib.pf_isa_name(i)).decode(): i for i in range(lib.pf_isa_count())}
    return {
        key: {numbers[isa]: address for isa, address in variants.items() if isa in numbers}
        for key, variants in check_kernels(rows, path).items()
    }


def _text(text: Any) -> str | None:
    """Return a short C string, None for NULL."""
    if text == ffi.NULL:
        return None
    return str(ffi.string(text, LONGEST_NAME + 1).decode(errors="backslashreplace"))


MAX_THREADS: int = lib.PF_MAX_THREADS


def thread_count() -> int:
    """Return the number of threads that share work, including the calling one."""
    return int(lib.pf_thread_count())


def set_thread_count(count: int) -> None:
    """Set the number of threads that share work, from 1 to MAX_THREADS."""
    lib.pf_set_thread_count(count)


def threads_left() -> int:
    """Return how many threads a task of the calling thread may use at this moment."""
    return int(lib.pf_threads_left())


def set_beside(beside: bool) -> bool:
    """Say whether the calling thread computes beside others; return what held before."""
    return bool(lib.pf_set_beside(beside))


def pool_report() -> dict[str, int]:
    """Return what the thread pool has done so far.

    ``workers`` is the number of threads started in this process, ``regions`` the number of calls
    that were shared between threads, ``wake_nanoseconds`` the mean cost of waking a thread.
    """
    report = ffi.new("pf_pool_report *")
    lib.pf_pool_look(report)
    return {
        "workers": int(report.workers),
        "regions": int(report.regions),
        "wake_nanoseconds": int(report.wake_nanoseconds),
    }


def kernel_names() -> list[str]:
    """Return the names of all built-in kernels."""
    names = (lib.pf_kernel_name(i) for i in range(lib.pf_kernel_count()))
    return [ffi.string(name).decode() for name in names]


def pointer(array: npt.NDArray[Any]) -> Any:
    """Return a ``void *`` to an array's first element; the caller keeps the array alive."""
    return ffi.cast("void *", array.ctypes.data)


def typed_pointer(ctype: str, array: npt.NDArray[Any]) -> Any:
    """Return a pointer of the given C type to an array's first element."""
    return ffi.cast(ctype, array.ctypes.data)


def view(address: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Return an array over memory of the C core; valid while its owner lives."""
    size = dtype.itemsize
    for extent in shape:
        size *= extent
    if size == 0:
        return np.empty(shape, dtype)
    return np.frombuffer(ffi.buffer(address, size), dtype).reshape(shape)


def empty_aligned(count: int, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Return zeros of the dtype, 64-byte aligned."""
    raw = np.zeros(count * dtype.itemsize + 64, np.uint8)
    shift = -int(ffi.cast("uintptr_t", ffi.from_buffer(raw))) % 64
    return raw[shift : shift + count * dtype.itemsize].view(dtype)


def random_words(seed: int, stream: int, count: int) -> npt.NDArray[np.uint32]:
    """Return uniform 32-bit words of the Philox stream (seed, stream)."""
    words = np.empty(count, np.uint32)
    lib.pf_random_words(seed, stream, count, typed_pointer("uint32_t *", words))
    return words


def shuffle(seed: int, epoch: int, count: int) -> npt.NDArray[np.int64]:
    """Return the permutation that an epoch of training with this seed uses."""
    order = np.empty(count, np.int64)
    lib.pf_shuffle(seed, epoch, count, typed_pointer("int64_t *", order))
    return order


_OPERAND_SIZE = ffi.sizeof("pf_operand")
# Of a function `int (pf_kernel, const pf_call *)` by which `call_kernel` has kernels called; 0: by
# itself. The conformance kit sets it in a process under a sanitizer.
call_through: int = 0


def call_kernel(
    name: str,
    bits: int,
    inputs: list[npt.NDArray[Any] | None],
    outputs: list[npt.NDArray[Any] | None],
    *,
    states: list[npt.NDArray[Any]] | None = None,
    attributes: bytes = b"",
    scratch_bytes: int = 0,
    training: bool = False,
    seed: int = 0,
    stream: int = 0,
    step: int = 0,
    first_sample: int = 0,
    learning_rate: float = 0.0,
    scratch: npt.NDArray[Any] | None = None,
    unwanted: Collection[int] = (),
    kernel: int = 0,
    backwards: bool = False,
) -> tuple[int, int, int, int]:
    """Call one kernel on arrays and return (status, operand, index, value).

    The tests and the conformance kit call single kernels in this way; training goes through a
    plan. All arrays must be contiguous; an absent operand is None. The outputs in `unwanted`
    keep their shape and lose their data, as in a plan. `scratch` replaces the scratch memory of
    the call, and `kernel` (an address) the built-in kernel of that name. With `backwards` the parts
    that it gives the host's `parallel_for` run from the last to the first.
    """
    alive: list[Any] = []

    def operands(arrays: list[npt.NDArray[Any] | None], unwanted: Collection[int] = ()) -> Any:
        table = ffi.new("pf_operand *[]", max(len(arrays), 1))
        for i, array in enumerate(arrays):
            operand = ffi.new("pf_operand *")
            operand.size = _OPERAND_SIZE
            if array is not None:
                dtype, dims = array.dtype, ffi.new("int64_t[]", array.shape or 1)
                operand.ndim, operand.dims = array.ndim, dims
                operand.data = ffi.NULL if i in unwanted else ffi.from_buffer(array)
                operand.type_code = TYPE_CODES[dtype.kind]
                operand.type_bits, operand.type_lanes = 8 * dtype.itemsize, 1
                alive.append(dims)
            table[i] = operand
            alive.append(operand)
        alive.append(table)
        return ffi.cast("pf_operand **", table)

    if scratch is None:
        scratch = empty_aligned(max(scratch_bytes, 1), np.dtype(np.uint8))
    block = ffi.new("char[]", attributes) if attributes else ffi.NULL
    pf_step = ffi.new("pf_step *", {"size": ffi.sizeof("pf_step"), "seed": seed, "step": step})
    pf_step.first_sample, pf_step.learning_rate = first_sample, learning_rate
    error = ffi.new("pf_error *", {"size": ffi.sizeof("pf_error")})
    call = ffi.new("pf_call *")
    call.size = ffi.sizeof("pf_call")
    call.flags = lib.PF_TRAINING if training else 0
    call.input_count, call.output_count = len(inputs), len(outputs)
    call.state_count = len(states or [])
    call.attribute_size = len(attributes)
    call.inputs, call.outputs = operands(inputs), operands(outputs, unwanted)
    call.states = operands(list(states or []))
    call.attributes = block
    call.scratch, call.scratch_size = ffi.from_buffer(scratch), scratch_bytes
    call.stream, call.step, call.error = stream, pf_step, error
    call.host = _backwards_host()[0] if backwards else lib.pf_get_host()
    address = kernel or find_kernel(name, bits)
    if not address:
        raise LookupError(f"there is no kernel pf_{name}_f{bits}")
    status = _run_kernel(address, call)
    return status, int(error.operand), int(error.index), int(error.value)


def _run_kernel(address: int, call: Any) -> int:
    kernel = ffi.cast("pf_kernel", address)
    if not call_through:
        return int(kernel(call))
    return int(ffi.cast("int (*)(pf_kernel, const pf_call *)", call_through)(kernel, call))


def _run_backwards(parts: int, nanoseconds: int, body: Any, context: Any) -> None:
    for part in reversed(range(parts)):
        body(context, part)


@functools.cache
def _backwards_host() -> tuple[Any, Any]:
    """Return a host table whose `parallel_for` begins with the last part, and what it calls."""
    signature = "void(int64_t, int64_t, void(*)(void *, int64_t), void *)"
    parallel_for = ffi.callback(signature, _run_backwards)
    host = ffi.new("pf_host *", lib.pf_get_host()[0])
    host.parallel_for = parallel_for
    return host, parallel_for  # which lives as long as somebody holds it


class Product:
    """The core's matrix product c = a @ b, prepared: `run` computes it.

    The tests and the benchmark call the product in this way; training goes through a plan.

    Parameters
    ----------
    a, b, c : array
        Matrices of one float dtype whose last axis is contiguous. `c` is written.
    transpose_a, transpose_b : bool
        The operand is stored transposed.
    rows : array of uintp, shape (taps, m), optional
        The addresses of the rows of an indirect a, which then is None.
    packed : bool
        Pack b beforehand into the order in which the product reads it.
    scratch : bool or array
        Provide the scratch memory that it can use, or take this, which must have as many bytes.
    isa : str, optional
        An instruction set of this machine, instead of the one in use.
    **fields
        The other members of `pf_gemm`: numbers, and arrays for pointers.
    """

    def __init__(
        self,
        a: npt.NDArray[Any] | None,
        b: npt.NDArray[Any],
        c: npt.NDArray[Any],
        *,
        transpose_a: bool = False,
        transpose_b: bool = False,
        rows: npt.NDArray[Any] | None = None,
        packed: bool = False,
        scratch: bool | npt.NDArray[Any] = True,
        isa: str | None = None,
        **fields: Any,
    ) -> None:
        number = lib.pf_selected_isa() if isa is None else _isa_number(isa)
        self._functions = lib.pf_find_gemm(number, 8 * c.itemsize)
        self._alive: list[Any] = [a, b, c, rows, *fields.values()]

        def stride(array: npt.NDArray[Any]) -> int:
            return array.strides[0] // array.itemsize

        g = ffi.new("pf_gemm *", {"size": ffi.sizeof("pf_gemm"), "a_step": 1})
        g.m, g.n = c.shape
        g.k = b.shape[1] if transpose_b else b.shape[0]
        if a is not None:
            g.a = pointer(a)
            g.a_row, g.a_step = (1, stride(a)) if transpose_a else (stride(a), 1)
        if rows is not None:
            g.a_rows, g.taps = typed_pointer("void **", rows), rows.shape[0]
        g.b, g.b_row, g.b_transposed = pointer(b), stride(b), transpose_b
        g.c, g.c_row = pointer(c), stride(c)
        for name, value in fields.items():
            setattr(g, name, pointer(value) if isinstance(value, np.ndarray) else value)
            if name in ("residual", "saved"):
                setattr(g, f"{name}_row", stride(value))
        if packed:
            panels = empty_aligned(self._functions.packed_size(g), c.dtype)
            self._functions.pack(g, pointer(panels))
            g.b, g.b_packed = pointer(panels), True
            self._alive.append(panels)
        self.scratch_bytes: int = self._functions.scratch_size(g) * c.itemsize
        if scratch is not False:
            memory = scratch
            if isinstance(memory, bool):
                memory = empty_aligned(self.scratch_bytes // c.itemsize, c.dtype)
            g.scratch = pointer(memory)
            self._alive.append(memory)
        self._gemm = g

    def run(self) -> None:
        """Compute c."""
        self._functions.run(self._gemm)

    @staticmethod
    def repeat(products: list[Product], repeats: int) -> None:
        """Compute some products of one dtype again and again, for a benchmark."""
        table = ffi.new("pf_gemm *[]", [p._gemm for p in products])
        count, repeats = len(products), int(repeats)
        lib.pf_repeat_gemm(products[0]._functions, table, count, repeats)
