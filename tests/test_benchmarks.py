"""The benchmarks measure what they say; how fast anything is decides nothing here."""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.once

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"
RESULTS = FOLDER / "results"


@pytest.fixture(scope="module")
def bench() -> Any:
    """Return the modules `run`, `report` and `workloads` of the benchmarks."""
    sys.path.insert(0, str(FOLDER))
    try:
        import report
        import run
        import sequences
        import workloads

        made = ModuleType("bench")
        made.run, made.report, made.workloads = run, report, workloads
        made.sequences = sequences
        yield made
    finally:
        sys.path.remove(str(FOLDER))
        for name in ("run", "report", "scaling", "sequences", "workloads"):
            sys.modules.pop(name, None)


FAKE = """
import json, sys
import numpy as np
from workloads import WORKLOADS
mode, name, folder = sys.argv[1:4]
def say(**answer): print(json.dumps(answer), flush=True)
if mode == "absent":
    say(absent="No module named 'nowhere'"); sys.exit()
if mode == "dies":
    print("out of cheese", file=sys.stderr); sys.exit(3)
say(ready="as a fake", variant="", versions={"fake": "1"})
layers = WORKLOADS[name].first_weights()
arrays = [a for layer in layers for a in layer]
if mode == "wrong": arrays[-1] += 0.1
speeds = iter([9e-3, 1e-3, 5e-3, 2e-3] if mode == "slow" else [9e-4, 2e-4, 1e-4, 7e-4])
for line in sys.stdin:
    asked = json.loads(line)
    match asked["do"]:
        case "check": np.savez(asked["to"], *arrays); say(steps=asked["steps"])
        case "time": s = next(speeds); say(wall=s, cpu=s / 2, steps=1)
        case "memory": say(peak=50_000_000, imported=20_000_000)
"""


@pytest.fixture
def faked(bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that measures fake peers of some behaviours on a workload."""
    script = tmp_path / "fake.py"
    script.write_text(FAKE, encoding="utf-8")

    def command(kind: Any, workload: Any, folder: Path, threads: int) -> list[str]:
        return [sys.executable, str(script), kind.script, workload.name, str(folder)]

    monkeypatch.setattr(bench.run, "command_of", command)

    def run(**modes: str) -> dict[str, Any]:
        peers = {name: bench.run.PeerKind(mode) for name, mode in modes.items()}
        settings = bench.run.Settings(rounds=3, seconds=0.01, memory=True, folder=tmp_path)
        return bench.run.run(["tabular"], peers, [1], settings)

    return run


def test_medians_and_ratios_come_out(bench: Any, faked: Any) -> None:
    result = json.loads(json.dumps(faked(pyframe="fast", numpy="slow", jax="slow")))
    (run,) = result["runs"]
    run["floor"], run["target"] = {"operations": 5e-5, "bytes": 1e-6}, 4  # not this machine's
    assert run["peers"]["numpy"]["wall"] == [1e-3, 5e-3, 2e-3]  # the first does not count
    seconds = bench.report.medians(run, "wall")
    assert seconds == {"pyframe": 2e-4, "numpy": 2e-3, "jax": 2e-3}
    assert bench.report.ratio(run, "wall") == pytest.approx(10)
    assert bench.report.medians(run, "cpu")["numpy"] == 1e-3
    text = bench.report.markdown(result)
    assert "| 50.0 µs | operations | **200 µs** | **2.00 ms** | 2.00 ms | 25 % |" in text
    assert "| 25 % | 10.00 | 40.00 | 4 | yes |" in text
    assert "| 50 (+30) | 50 (+30) | 50 (+30) | no |" in text  # not below every framework


def test_two_versions_are_compared(bench: Any, faked: Any) -> None:
    kinds = bench.run.chosen(["pyframe", "numpy"], "other/bin/python")
    assert kinds["pyframe before"].python == "other/bin/python"
    assert kinds["pyframe before"].variant == kinds["pyframe"].variant
    assert list(kinds) == ["pyframe", "numpy", "pyframe before"]
    assert list(bench.run.chosen(["pyframe", "numpy"], None)) == ["pyframe", "numpy"]
    result = faked(**{"pyframe": "slow", "pyframe before": "fast", "numpy": "slow"})
    assert bench.report.ratio(result["runs"][0], "wall") == pytest.approx(1)
    text = bench.report.markdown(result)
    assert "## Time of a step, as a part of that before" in text
    assert "| 1 | 10.000 | - |" in text
    del result["runs"][0]["peers"]["pyframe before"]
    assert "as a part of that before" not in bench.report.markdown(result)


def test_absent_and_dead_peers_are_skipped_and_named(bench: Any, faked: Any) -> None:
    result = faked(pyframe="fast", numpy="slow", jax="absent", torch="dies")
    (run,) = result["runs"]
    assert set(run["peers"]) == {"pyframe", "numpy"}
    assert run["missing"]["jax"] == "No module named 'nowhere'"
    assert "ended with 3: out of cheese" in run["missing"]["torch"]
    text = bench.report.markdown(result)
    assert "jax left out: No module named 'nowhere'" in text
    assert "torch left out: ended with 3: out of cheese" in text


def test_a_peer_with_another_loss_is_not_timed(faked: Any) -> None:
    (run,) = faked(pyframe="fast", numpy="slow", sklearn="wrong")["runs"]
    assert set(run["peers"]) == {"pyframe", "numpy"}
    assert "and the others' is" in run["missing"]["sklearn"]


def test_the_best_peer_is_the_best_of_all(bench: Any) -> None:
    seconds = {"pyframe": 1.0, "pyframe step": 0.5, "jax loop": 1.5, "jax": 3.0, "numpy": 2.0}
    assert bench.report.best_peer(seconds) == "jax loop"
    assert bench.report.best_peer({"pyframe": 1.0, "pyframe before": 0.5}) is None


def test_targets_are_for_workloads_that_there_are(bench: Any) -> None:
    for targets in bench.run.TARGETS.values():
        assert targets.keys() <= bench.sequences.WORKLOADS.keys()


def test_the_larger_of_two_floors_binds(bench: Any) -> None:
    peaks = bench.run.Peaks(
        {"float32": 1e11}, {"L1": 1e12, "memory": 1e9}, {"L1": 10_000, "memory": 10**8}, {}
    )
    w = bench.workloads.WORKLOADS
    floor = bench.run.floor_of(w["wide_mlp"], peaks, 2)
    assert floor["operations"] == pytest.approx(w["wide_mlp"].flops / 2e11)
    assert floor["bytes"] == pytest.approx(w["wide_mlp"].traffic / 2e9)
    assert bench.run.floor_of(w["predict_row"], peaks, 1)["bytes"] > 1e-6  # 20 kB of weights
    parameters = 13 * 64 + 64 + 64 * 64 + 64 + 64 + 1
    assert w["predict_8"].traffic == 4 * (parameters + 8 * (13 + 1))
    values = 32 * (64 + 64 + 1)
    assert w["tabular"].traffic == 4 * (2 * 32 * 13 + 5 * values + parameters * 10)


def test_peers_can_be_held_to_an_instruction_set(bench: Any) -> None:
    free, held = bench.run.environment(1), bench.run.environment(1, "avx2")
    assert held["PYFRAME_ISA"] == "avx2" and "PYFRAME_ISA" not in free
    assert held["OPENBLAS_CORETYPE"] == "Haswell" and "OPENBLAS_CORETYPE" not in free
    assert "--xla_cpu_max_isa=AVX2" in held["XLA_FLAGS"].split()
    assert "--xla_cpu_multi_thread_eigen=false" in held["XLA_FLAGS"].split()


def test_memory_is_judged(bench: Any) -> None:
    met = bench.report._memory_met
    assert met({"pyframe": 39_000_000, "numpy": 30_000_000, "torch": 300_000_000}) == "yes"
    assert met({"pyframe": 41_000_000, "numpy": 30_000_000, "torch": 300_000_000}) == "no"
    assert met({"pyframe": 39_000_000, "numpy": 30_000_000, "torch": 38_000_000}) == "no"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(2.5, "2.50 s"), (0.0123, "12.3 ms"), (123e-6, "123 µs"), (4e-8, "0.04 µs")],
)
def test_durations(bench: Any, seconds: float, text: str) -> None:
    assert bench.report.duration(seconds) == text


def test_the_floor_counts_the_products(bench: Any) -> None:
    w = bench.workloads.WORKLOADS
    layers = 2 * 32 * np.array([13 * 64, 64 * 64, 64])
    assert w["tabular"].flops == 3 * layers.sum() - layers[0]
    assert w["predict_row"].flops == layers.sum() // 32
    assert w["predict_64"].flops == 2 * layers.sum()
    assert w["wide_mlp"].flops == 5 * 2 * 256 * 1024 * 4096
    first, second = 24 * 24 * 6 * 25, 8 * 8 * 16 * 25 * 6
    dense = 256 * 120 + 120 * 84 + 84 * 10
    assert w["lenet"].flops == 64 * 2 * (3 * (first + second + dense) - first)


def test_the_floor_of_sequences_counts_their_products(bench: Any) -> None:
    w = bench.sequences.WORKLOADS
    of_input, of_state = 50 * 2 * 32 * 512, 50 * 2 * 128 * 512
    assert w["lstm_row"].flops == of_input + of_state + 2 * 128
    assert w["lstm"].flops == 32 * (2 * of_input + 3 * of_state + 3 * 2 * 128)
    assert w["gru"].flops * 4 == pytest.approx(w["lstm"].flops * 3, rel=1e-3)
    d, t, pairs = 128, 64, 64 * 65 // 2
    block = t * 2 * (3 + 1 + 4 + 4) * d * d + 2 * 2 * pairs * d
    assert w["transformer"].flops == 3 * 16 * (2 * block + t * 2 * d * 65)
    once = 4 * (32 * 512 + 512 + 128 * 512 + 128 + 1 + 50 * 32 + 1)
    assert w["lstm_row"].traffic == once + 49 * 4 * 128 * 512  # the state's weights at each step


def test_results_of_later_are_added(bench: Any, faked: Any) -> None:
    one = faked(pyframe="fast", numpy="slow")
    other = json.loads(json.dumps(one))
    other["runs"][0]["workload"], other["date"] = "lstm", "2026-11-30 01:02 UTC"
    other["command"] = "python run.py lstm --json a/b.json --markdown c.md"
    both = bench.report.add(one, other)
    assert [run["workload"] for run in both["runs"]] == ["tabular", "lstm"]
    assert both["command"].endswith("`, lstm, 2026-11-30, by `python run.py lstm")
    other["runs"][0]["workload"] = "tabular"
    assert bench.report.add(one, other)["runs"] == other["runs"]
    with pytest.raises(ValueError, match="isa"):
        bench.report.add(one, {**other, "isa": "none"})


def test_the_section_goes_between_the_markers(bench: Any) -> None:
    (begin, end), other = (
        (text.format("avx2") for text in (bench.report.BEGIN, bench.report.END)),
        bench.report.BEGIN.format("neon"),
    )
    page = f"a\n{other}\n{begin}\nold\n{end}\nb\n"
    once = bench.report.insert(page, "new\n", "avx2")
    assert once == f"a\n{other}\n{begin}\nnew\n{end}\nb\n"
    assert bench.report.insert(once, "new\n", "avx2") == once
    with pytest.raises(ValueError, match="no place for the table"):
        bench.report.insert(page, "new\n", "neon")


@pytest.mark.docs
@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.json")), ids=lambda path: path.stem)
def test_the_pages_show_the_results(bench: Any, path: Path) -> None:
    result = json.loads(path.read_text(encoding="utf-8"))
    assert path.stem.split("_")[-1] == result["isa"]
    shown = bench.report.pages_of(path.stem)
    in_readme = path.stem in ("xeon_avx512", "only_avx2")
    assert [page.name for page in shown] == ["beside-others.md", "README.md"][: 1 + in_readme]
    for page in shown:
        text = page.read_text(encoding="utf-8")
        assert bench.report.insert(text, bench.report.readme_section(result), path.stem) == text
    shown = path.with_suffix(".md").read_text(encoding="utf-8")
    assert shown == bench.report.markdown(result)


def test_the_picture_is_drawn(bench: Any, faked: Any, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "picture.png"
    bench.report.plot(faked(pyframe="fast", numpy="slow"), path)
    assert path.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("size", [64, 1 << 20, 1 << 28])
def test_the_model_of_scaling(bench: Any, size: int) -> None:
    """A message costs a + n / b; in a ring 2 (s - 1) of n / s, up and down a tree 2 log2 s of n."""
    scaling = importlib.import_module("scaling")
    network = scaling.Network(latency=1e-5, bandwidth=1e9, adding=0.0)
    message = lambda n: 1e-5 + n / 1e9  # noqa: E731
    for ranks in (2, 8, 1024):
        ring, tree = 2 * (ranks - 1) * message(size / ranks), 2 * ranks.bit_length() - 2
        assert scaling.ring(ranks, size, network) == pytest.approx(ring)
        assert scaling.tree(ranks, size, network) == pytest.approx(tree * message(size))
    small, large = (scaling.predicted(s, lambda part: 1e-3 * part, size, network) for s in (2, 64))
    assert small[1] < 2 and small[1] == pytest.approx(1e-3 / small[0])
    assert (large[1] > small[1]) == (size < 1 << 20)  # few bytes: more ranks still pay
    assert scaling.predicted(1, lambda part: 1e-3, size, network) == (1e-3, 1.0)


def test_libraries_run_at_their_best(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Prescott")
    monkeypatch.setenv("OPENBLAS_L2_SIZE", "1")
    environment = bench.run.environment(2)
    assert not {"OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"} & set(environment)
    assert environment["OPENBLAS_NUM_THREADS"] == environment["PYFRAME_NUM_THREADS"] == "2"
    assert os.environ["OPENBLAS_CORETYPE"] == "Prescott"


@pytest.mark.parametrize("name", ["lstm", "gru", "lstm_row", "transformer"])
def test_pyframe_learns_sequences_as_the_formulas_say(
    bench: Any, name: str, tmp_path: Path
) -> None:
    """The loss after the steps of the check is that of the reference, and below the first one."""
    pytest.importorskip("pyframe_seq")
    workload = bench.sequences.WORKLOADS[name]
    workload.write(tmp_path)
    peers = {n: bench.run.PEERS[n] for n in ("pyframe", "pyframe step", "torch", "onnxruntime")}
    peers = {n: kind for n, kind in peers.items() if name not in kind.skips}
    settings = bench.run.Settings(rounds=1, seconds=0.005, memory=False, folder=tmp_path)
    rows, missing, _ = bench.run.measure(workload, peers, 1, settings)
    assert all("No module" in reason for reason in missing.values()), missing
    losses = [row.loss for row in rows.values()]
    first = workload.loss_of(workload.first_weights())
    assert losses == pytest.approx([losses[0]] * len(losses), rel=bench.run.TOLERANCE)
    assert losses[0] == pytest.approx(first) if workload.predict else losses[0] < first


@pytest.mark.parametrize(
    "name", ["lesson", "tabular", "simplechains_200", "mlp_7x_32", "predict_row", "predict_8"]
)
def test_pyframe_and_numpy_come_to_the_same_loss(
    bench: Any, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    workload = bench.workloads.WORKLOADS[name]
    workload.write(tmp_path)
    peers = {n: bench.run.PEERS[n] for n in ("pyframe", "pyframe step", "numpy", "onnxruntime")}
    settings = bench.run.Settings(rounds=2, seconds=0.005, memory=True, folder=tmp_path)
    rows, missing, versions = bench.run.measure(workload, peers, 1, settings)
    assert all("No module" in reason for reason in missing.values()), missing
    assert set(rows) == {n for n in peers if name not in peers[n].skips} - set(missing)
    assert "numpy" in rows
    for row in rows.values():
        assert row.loss == pytest.approx(rows["numpy"].loss, rel=bench.run.TOLERANCE)
        assert len(row.wall) == len(row.cpu) == 2 and min(row.wall) > 0
        assert row.memory >= row.imported > 0
    assert {"pyframe", "numpy"} <= set(versions)
