"""Tests of the tests: a fault planted in a kernel or a layer of this package must turn them red."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyframe_seq as seq
import pytest
import test_attention
import test_recurrent_cells
import test_recurrent_layers
from pyframe_seq import recurrent_cells, recurrent_parts, transformer
from pyframe_seq.recurrent_base import Extents, sample_weights

import pyframe as pf
from pyframe.testing import ConformanceError, check_forward

KERNELS = Path(__file__).resolve().parents[1] / "kernels"
COMPILER = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
FLAGS = ["-std=c11", "-O1", "-fPIC", "-ffp-contract=fast", "-fno-math-errno", "-DISA=baseline"]
FLAGS += ["-DBITS=64", f"-I{pf.get_include()}", f"-I{KERNELS}"]
needs_compiler = pytest.mark.skipif(
    COMPILER is None or sys.platform == "win32" or not KERNELS.is_dir(),
    reason="needs a C compiler, and the sources of the kernels",
)


class Fault(NamedTuple):
    """A piece of a file and what becomes of it, and the op in whose tests it must show."""

    name: str
    file: str
    old: str
    new: str
    op: type[pf.Op]


class OneLongSequence(seq.Lstm):
    """One for which the weights of the state are kept in strips."""

    @classmethod
    def sample(cls, draw: Any) -> pf.Case:
        inputs = sample_weights(draw, Extents(1, 17, 3, 33, 33, 132))
        return pf.Case((*inputs, *[None] * 6), {})


class FirstIsNotFinite(seq.AttentionGrad):
    """The gradient of causal attention whose first query, which sees one key, is not a number."""

    @classmethod
    def sample(cls, draw: Any) -> pf.Case:
        inputs, attributes = super().sample(draw)[:2]
        q = np.array(inputs[0])
        q[:, :1] = np.nan
        return pf.Case((q, *inputs[1:]), {**attributes, "causal": True})


FAULTS = [
    Fault(
        "gates in another order",
        "recurrent_lstm.c",
        "to[j] = z[units + j] * to[j] + z[j] * candidate[j];",
        "to[j] = z[j] * to[j] + z[units + j] * candidate[j];",
        seq.Lstm,
    ),
    Fault(
        "the gradient of the cell goes through the wrong gate",
        "recurrent_lstm.c",
        "dc[j] = d * f[j];",
        "dc[j] = d * i[j];",
        seq.LstmGrad,
    ),
    Fault(
        "z and 1 - z changed places",
        "recurrent_gru.c",
        "hi[j] = (1 - z[units + j]) * ni[j] + z[units + j] * hi[j];",
        "hi[j] = z[units + j] * ni[j] + (1 - z[units + j]) * hi[j];",
        seq.Gru,
    ),
    Fault(
        "a reset that the gradient forgets",
        "recurrent_gru.c",
        "d = dn * reset[j];",
        "d = dn;",
        seq.GruGrad,
    ),
    Fault(
        "a reset before the product that the gradient forgets",
        "recurrent_gru.c",
        "p[j] = dq[j] * reset[j];",
        "p[j] = dq[j];",
        seq.GruGrad,
    ),
    Fault(
        "a row that is missing from the gradient of a bias",
        "recurrent_gru.c",
        "sums[3 * units + j] += d;",
        "sums[3 * units + j] = d;",
        seq.GruGrad,
    ),
    Fault(
        "rows that are missing from it where the reset comes first",
        "recurrent_gru.c",
        "sums[units + j] += di, sums[2 * units + j] += dn;",
        "sums[units + j] += di, sums[2 * units + j] = dn;",
        seq.GruGrad,
    ),
    Fault(
        "what was dropped comes back in the gradient",
        "recurrent_rnn.c",
        "    keep_gradient(r, s, dh);",
        "",
        seq.RnnGrad,
    ),
    Fault(
        "the state taken from padding",
        "recurrent.c",
        "if (row ? row[t] : t < length[n])",
        "if (row ? row[t] : reverse ? t >= steps - length[n] : t < length[n])",
        seq.Rnn,
    ),
    Fault(
        "a strip of weights that another follows",
        "strips.c",
        "run(x, b->b + j * b->k,",
        "run(x, b->b + (b->n - j > WIDTH ? j : 0) * b->k,",
        OneLongSequence,
    ),
    Fault(
        "a mask taken for a length",
        "recurrent.c",
        "if (row ? row[t] : t < length[n])",
        "if (t < length[n])",
        seq.Rnn,
    ),
    Fault(
        "a window that is one too wide",
        "attention.h",
        "s.from = max_of(0, at - window + 1);",
        "s.from = max_of(0, at - window);",
        seq.Attention,
    ),
    Fault(
        "a look at the next token",
        "attention.h",
        "s.to = min_of(s.to, at + 1);",
        "s.to = min_of(s.to, at + 2);",
        seq.Attention,
    ),
    Fault(
        "a mask that the gradient ignores",
        "attention_grad.c",
        "    NAME(scores)(a, b, t, s);",
        "    attention all = *a;\n    all.mask = NULL;\n    NAME(scores)(&all, b, t, s);",
        seq.AttentionGrad,
    ),
    Fault(
        "blocks that are added up on different scales",
        "attention.c",
        "sum[r] = sum[r] * factor[r] + total(",
        "sum[r] = sum[r] + total(",
        seq.Attention,
    ),
    Fault(
        "the term of y that the gradient forgets",
        "attention_grad.c",
        "p * (ds[x] - delta[r])",
        "p * ds[x]",
        seq.AttentionGrad,
    ),
    Fault(
        "turned the wrong way",
        "positions.c",
        "y[i * step] = a * cosines[i] - b * sines[i];",
        "y[i * step] = a * cosines[i] + b * sines[i];",
        seq.Rotary,
    ),
    Fault(
        "a row too many",
        "rows.c",
        "by_length ? t < steps[n]",
        "by_length ? t <= steps[n]",
        seq.MaskRows,
    ),
    Fault(
        "a state that is not written",
        "rows.c",
        "i < call->state_count; i++)",
        "i + 1 < call->state_count; i++)",
        seq.Carry,
    ),
    Fault(
        "words of the first tile alone",
        "vocabulary.c",
        ".accumulate = v->column > 0}",
        ".accumulate = 0}",
        seq.LinearCrossEntropyGrad,
    ),
    Fault(
        "tiles that are added up on different scales",
        "vocabulary.c",
        "v->sum[i] *= (real)exp((double)(v->top[i] - shift));",
        "",
        seq.LinearCrossEntropy,
    ),
    Fault(
        "a label to be ignored that gets a gradient",
        "vocabulary.c",
        "if (is_ignored(v, label)) {",
        "if (0 && is_ignored(v, label)) {",
        seq.LinearCrossEntropyGrad,
    ),
    Fault(
        "a word as likely as the last one that is left out",
        "drawing.c",
        "if (z[word[i]] == least) {",
        "if (0 && z[word[i]] == least) {",
        seq.DrawToken,
    ),
    Fault(
        "a nucleus that ends with a word too few",
        "drawing.c",
        "if (sum < top_p * total)",
        "if (sum + p[word[at]] < top_p * total)",
        seq.DrawToken,
    ),
    Fault(
        "what is not finite reaches pairs that do not see each other",
        "attention.c",
        "with_care.a.clean = room.clean;",
        "",
        seq.Attention,
    ),
    Fault(
        "what is not finite is left out",
        "attention_tiles.c",
        "if (!isfinite(b[d])) c[d] += factor * b[d];",
        "(void)factor, (void)c;",
        seq.Attention,
    ),
    Fault(
        "keys and queries changed places in what is not finite",
        "attention_tiles.c",
        "p->turned ? sees(a, t, l, r) : sees(a, t, r, l)",
        "sees(a, t, r, l)",
        FirstIsNotFinite,
    ),
    Fault(
        "words as likely as each other that come in any order",
        "drawing.c",
        "(z[i] == z[j] && i < j)",
        "(z[i] == z[j] && i > j)",
        seq.DrawToken,
    ),
]


class Workshop:
    """The kernels for float64, compiled once, and then only the files with a fault in them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.families = sorted(p.name for p in KERNELS.glob("*.c") if p.name != "plugin.c")
        self._objects: dict[str, Path] = {}
        self._count = 0

    def _compile(self, source: Path, folder: Path) -> Path:
        target = folder / f"{source.name}.o"
        command = [str(COMPILER), *FLAGS, "-c", str(source), "-o", str(target)]
        subprocess.run(command, check=True)
        return target

    def _object(self, family: str) -> Path:
        if family not in self._objects:
            self._objects[family] = self._compile(KERNELS / family, self.folder)
        return self._objects[family]

    def build(self, fault: Fault | None = None) -> Callable[[str, int], int]:
        """Return a finder of kernels, of those with a fault or of those as they are."""
        self._count += 1
        folder, changed = self.folder / str(self._count), set()
        folder.mkdir()
        if fault is not None:
            text = (KERNELS / fault.file).read_text(encoding="utf-8")
            assert text.count(fault.old) == 1, f"{fault.old!r}: {text.count(fault.old)} times"
            for path in KERNELS.iterdir():  # a header is looked for beside what includes it
                shutil.copy(path, folder)
            (folder / fault.file).write_text(text.replace(fault.old, fault.new), encoding="utf-8")
            changed = {
                name
                for name in self.families
                if name == fault.file
                or f'"{fault.file}"' in (KERNELS / name).read_text(encoding="utf-8")
            }
        objects = [
            self._compile(folder / name, folder) if name in changed else self._object(name)
            for name in self.families
        ]
        library = folder / "kernels.so"
        command = [str(COMPILER), "-shared", "-o", str(library), *map(str, objects), "-lm"]
        subprocess.run(command, check=True)
        loaded = ctypes.CDLL(str(library))

        def find(kernel: str, bits: int) -> int:
            symbol = getattr(loaded, f"{kernel.rpartition(':')[2]}_f{bits}_baseline")
            return ctypes.cast(symbol, ctypes.c_void_p).value or 0

        return find


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("kernels"))


@needs_compiler
@pytest.mark.parametrize("fault", FAULTS, ids=lambda f: f"{f.op.op}: {f.name}")
def test_a_fault_in_a_kernel_is_noticed(fault: Fault, workshop: Workshop) -> None:
    with pytest.raises(ConformanceError):
        check_forward(fault.op, "float64", shapes=40, kernels=workshop.build(fault))


@needs_compiler
def test_the_kernels_as_they_are_pass(workshop: Workshop) -> None:
    find = workshop.build()
    for op in dict.fromkeys(fault.op for fault in FAULTS):
        check_forward(op, "float64", shapes=20, kernels=find)


# ---- faults in the layers ----


def wrong_gate(self: Any, name: str) -> Any:
    values = np.zeros(self.shape)
    values.reshape(4, -1)[0] += 1
    return values


LAYER_FAULTS: list[tuple[str, Any, str, Any, Callable[[], Any]]] = [
    (
        "hidden rows of a context that get into weights",
        transformer, "without_hidden", lambda context, given: context,
        lambda: test_attention.test_hidden_rows_do_not_leak_into_weights(
            "lengths", "decoder", "the context", np.nan
        ),
    ),
    (
        "hidden rows of x that get into weights",
        transformer, "own_steps", lambda given: {},
        lambda: test_attention.test_hidden_rows_do_not_leak_into_weights(
            "mask", "encoder", "x alone", np.nan
        ),
    ),
    (
        "a bias that is added where no key is seen",
        transformer, "_where_seen", lambda y, lse: y,
        lambda: test_attention.test_a_sample_that_sees_nothing_is_zero_in_training_too(
            "lengths", True
        ),
    ),
    (
        "a layer whose states are carried twice in one graph",
        seq.Carry, "sole_writer", False,
        lambda: test_recurrent_layers.test_a_stateful_layer_is_called_once_in_a_graph(seq.GRU),
    ),
    (
        "a decoder block that sees the future",
        seq.TransformerDecoderBlock, "_causal", False,
        lambda: test_attention.test_a_decoder_block_does_not_see_the_future(True),
    ),
    (
        "states that are not reset",
        seq.LSTM, "reset_states", lambda self: None,
        lambda: test_recurrent_layers.test_chunks_of_a_stateful_layer_are_the_whole(seq.LSTM, {}),
    ),
    (
        "the bias of the wrong gate",
        recurrent_parts.ForgetBias, "materialize", wrong_gate,
        test_recurrent_layers.test_lstm_begins_with_a_forget_bias_of_one,
    ),
    (
        "a cell that goes on where a sequence has ended",
        recurrent_cells.pf, "Where", lambda condition, a, b: a,
        lambda: test_recurrent_layers.test_a_layer_of_cells_is_the_layer_with_a_kernel(
            seq.GRU, "lengths", False
        ),
    ),
    (
        "both directions begin in front",
        seq.Bidirectional, "build",
        lambda self, *specs: setattr(self, "backward", type(self.layer)(
            **{**self.layer.config(), "name": None}
        )),
        lambda: test_recurrent_cells.test_bidirectional_is_the_argument("concat"),
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("thing", "name", "wrong", "test"),
    [pytest.param(*fault[1:], id=fault[0]) for fault in LAYER_FAULTS],
)
def test_a_fault_in_a_layer_is_noticed(
    thing: Any, name: str, wrong: Any, test: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    test()
    monkeypatch.setattr(thing, name, wrong)
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        test()
