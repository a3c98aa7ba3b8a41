"""The benchmarks measure what they say; how fast anything is decides nothing here."""

from __future__ import annotations

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
        import workloads

        made = ModuleType("bench")
        made.run, made.report, made.workloads = run, report, workloads
        yield made
    finally:
        sys.path.remove(str(FOLDER))
        for name in ("run", "report", "workloads"):
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
    assert run["peers"]["numpy"]["wall"] == [1e-3, 5e-3, 2e-3]  # the first does not count
    seconds = bench.report.medians(run, "wall")
    assert seconds == {"pyframe": 2e-4, "numpy": 2e-3, "jax": 2e-3}
    assert bench.report.ratio(run, "wall") == pytest.approx(10)
    assert bench.report.medians(run, "cpu")["numpy"] == 1e-3
    text = bench.report.markdown(result)
    assert "| **200 µs** | **2.00 ms** | 2.00 ms | 10.00 | 4 | yes |" in text
    assert "| 50 (+30) | 50 (+30) | 50 (+30) | no |" in text  # not below every framework
    assert "Not there yet: lstm, transformer" in text


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


def test_the_compiled_loop_is_no_peer_of_single_steps(bench: Any) -> None:
    seconds = {"pyframe": 1.0, "pyframe step": 0.5, "jax loop": 1.5, "jax": 3.0, "numpy": 2.0}
    assert bench.report.best_peer(seconds) == "numpy"
    assert bench.report.best_peer({"pyframe": 1.0}) is None


def test_every_workload_has_a_target(bench: Any) -> None:
    assert bench.run.TARGETS.keys() == bench.workloads.WORKLOADS.keys()


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
    assert w["wide_mlp"].flops == 5 * 2 * 256 * 1024 * 4096
    first, second = 24 * 24 * 6 * 25, 8 * 8 * 16 * 25 * 6
    dense = 256 * 120 + 120 * 84 + 84 * 10
    assert w["lenet"].flops == 64 * 2 * (3 * (first + second + dense) - first)


def test_the_section_goes_between_the_markers(bench: Any) -> None:
    page = f"a\n{bench.report.BEGIN}\nold\n{bench.report.END}\nb\n"
    once = bench.report.insert(page, "new\n")
    assert once == f"a\n{bench.report.BEGIN}\nnew\n{bench.report.END}\nb\n"
    assert bench.report.insert(once, "new\n") == once
    with pytest.raises(ValueError, match="no place for the table"):
        bench.report.insert("a\n", "new\n")


@pytest.mark.docs
def test_the_readme_shows_the_results(bench: Any) -> None:
    page = (FOLDER.parent / "README.md").read_text(encoding="utf-8")
    path = RESULTS / "results.json"
    if bench.report.BEGIN not in page:
        assert not path.exists(), "there are results; the README needs its table"
        pytest.skip("no results yet")
    result = json.loads(path.read_text(encoding="utf-8"))
    assert bench.report.insert(page, bench.report.readme_section(result)) == page
    assert (RESULTS / "results.md").read_text(encoding="utf-8") == bench.report.markdown(result)


def test_the_picture_is_drawn(bench: Any, faked: Any, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "picture.png"
    bench.report.plot(faked(pyframe="fast", numpy="slow"), path)
    assert path.read_bytes().startswith(b"\x89PNG")


def test_libraries_run_at_their_best(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Prescott")
    monkeypatch.setenv("OPENBLAS_L2_SIZE", "1")
    environment = bench.run.environment(2)
    assert not {"OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"} & set(environment)
    assert environment["OPENBLAS_NUM_THREADS"] == environment["PYFRAME_NUM_THREADS"] == "2"
    assert os.environ["OPENBLAS_CORETYPE"] == "Prescott"


@pytest.mark.parametrize("name", ["lesson", "tabular", "predict_row", "simplechains_200"])
def test_pyframe_and_numpy_come_to_the_same_loss(
    bench: Any, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    workload = bench.workloads.WORKLOADS[name]
    workload.write(tmp_path)
    peers = {n: bench.run.PEERS[n] for n in ("pyframe", "pyframe step", "numpy")}
    settings = bench.run.Settings(rounds=2, seconds=0.005, memory=True, folder=tmp_path)
    rows, missing, versions = bench.run.measure(workload, peers, 1, settings)
    assert not missing
    assert set(rows) == {n for n in peers if name not in peers[n].skips}
    for row in rows.values():
        assert row.loss == pytest.approx(rows["numpy"].loss, rel=bench.run.TOLERANCE)
        assert len(row.wall) == len(row.cpu) == 2 and min(row.wall) > 0
        assert row.memory >= row.imported > 0
    assert {"pyframe", "numpy"} <= set(versions)
