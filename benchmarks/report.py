"""Turn what `run.py` has measured into tables and a picture.

python benchmarks/report.py results.json               # the tables
python benchmarks/report.py results.json --plot p.png  # and the picture
python benchmarks/report.py results.json --readme      # put the first table into the pages
python benchmarks/report.py results.json --add new.json   # take over what was measured later

The name of the file says where in docs/beside-others.md, and in README.md, its table goes: that of
results/avx2.json between the markers of avx2.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
OWN = ("pyframe", "pyframe step")  # no peers of itself
BEFORE = " before"  # ends the name of what another version of pyframe took
BEGIN, END = "<!-- benchmark table: {} -->", "<!-- end of benchmark table: {} -->"  # of a file
PAGES = (ROOT / "docs" / "beside-others.md", ROOT / "README.md")  # all tables, and the first one
MEMORY_ABOVE_NUMPY = 10e6  # bytes that pyframe may take more than NumPy by hand
Result = dict[str, Any]


# ---- numbers ----


def medians(run: Result, clock: str) -> dict[str, float]:
    """Return the median seconds a step of each peer of one run."""
    return {name: statistics.median(row[clock]) for name, row in run["peers"].items() if row[clock]}


def is_own(name: str) -> bool:
    """Return whether this is pyframe itself, of this version or another."""
    return name.removesuffix(BEFORE) in OWN


def best_peer(seconds: dict[str, float]) -> str | None:
    """Return the fastest of all that are not pyframe."""
    peers = [name for name in seconds if not is_own(name)]
    return min(peers, key=seconds.__getitem__) if peers else None


def ratio(run: Result, clock: str) -> float | None:
    """Return how many times faster than the best peer pyframe is."""
    seconds = medians(run, clock)
    best = best_peer(seconds)
    if best is None or "pyframe" not in seconds:
        return None
    return seconds[best] / seconds["pyframe"]


def spread(values: Sequence[float]) -> float:
    """Return half the distance of the quartiles, as a part of the median."""
    if len(values) < 2:
        return 0.0
    low, middle, high = statistics.quantiles(values, n=4)
    return (high - low) / 2 / middle


# ---- words ----


def duration(seconds: float) -> str:
    """Return a time with three digits and its unit."""
    units = (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6))
    unit, size = next((u for u in units if seconds >= u[1]), units[-1])
    number = seconds / size
    return f"{number:.{0 if number >= 100 else 1 if number >= 10 else 2}f} {unit}"


def table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    rows = [header, ["---"] * len(header), *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"


def _peers(result: Result) -> list[str]:
    """Return all peers that were measured, in the order of their columns."""
    return list(dict.fromkeys(name for run in result["runs"] for name in run["peers"]))


def speed_table(result: Result, threads: int) -> str:
    """Return the table of times a step at one thread count."""
    clock, peers = result.get("clock", "wall"), _peers(result)
    judged = threads == 1
    header = ["workload", "floor", "bound by", *peers, "share of the floor", "ratio"]
    header += ["at the floor", "target", "met"] if judged else []
    lines = []
    for run in result["runs"]:
        if run["threads"] != threads:
            continue
        seconds, factor = medians(run, clock), ratio(run, clock)
        best, bound = best_peer(seconds), max(run["floor"], key=run["floor"].__getitem__)
        floor = run["floor"][bound]
        line = [run["title"], duration(floor), bound]
        for name in peers:
            text = duration(seconds[name]) if name in seconds else "-"
            line.append(f"**{text}**" if name in ("pyframe", best) else text)
        line.append(f"{100 * floor / seconds['pyframe']:.0f} %" if "pyframe" in seconds else "-")
        line.append("-" if factor is None else f"{factor:.2f}")
        if judged:
            target = run["target"]
            met = "yes" if target and factor and factor >= target else "no"
            line.append(f"{seconds[best] / floor:.2f}" if best else "-")
            line += [f"{target:g}", met] if target and factor else ["-", "-"]
        lines.append(line)
    return table(header, lines)


def scaling_table(result: Result) -> str:
    """Return how much faster each peer is with more threads than with one, or nothing."""
    clock, peers = result.get("clock", "wall"), _peers(result)
    single = {r["workload"]: medians(r, clock) for r in result["runs"] if r["threads"] == 1}
    lines = []
    for run in result["runs"]:
        base, now = single.get(run["workload"], {}), medians(run, clock)
        if run["threads"] == 1 or not base:
            continue
        ratios = [f"{base[p] / now[p]:.2f}" if p in base and p in now else "-" for p in peers]
        lines.append([run["title"], str(run["threads"]), *ratios])
    return table(["workload", "threads", *peers], lines) if lines else ""


def before_table(result: Result) -> str:
    """Return how long a step takes now, as a part of what it took before, or nothing."""
    clock, lines = result.get("clock", "wall"), []
    for run in result["runs"]:
        seconds = medians(run, clock)
        ratios = [
            f"{seconds[name] / seconds[name + BEFORE]:.3f}" if name + BEFORE in seconds else "-"
            for name in OWN
        ]
        if any(r != "-" for r in ratios):
            lines.append([run["title"], str(run["threads"]), *ratios])
    return table(["workload", "threads", *OWN], lines) if lines else ""


def memory_table(result: Result, threads: int) -> str:
    """Return the table of resident memory at one thread count, or nothing."""
    peers, lines = _peers(result), []
    for run in result["runs"]:
        rows = {n: r for n, r in run["peers"].items() if r["memory"]}
        if run["threads"] != threads or not rows:
            continue
        line = [run["title"]]
        for name in peers:
            if name not in rows:
                line.append("-")
                continue
            peak, imported = rows[name]["memory"], rows[name]["imported"]
            line.append(f"{peak / 1e6:.0f} ({(peak - imported) / 1e6:+.0f})")
        lines.append([*line, _memory_met({n: r["memory"] for n, r in rows.items()})])
    return table(["workload", *peers, "met"], lines) if lines else ""


def _memory_met(memory: dict[str, int]) -> str:
    """Say whether pyframe takes less than every framework, and hardly more than NumPy."""
    if "pyframe" not in memory or len(memory) == 1:
        return "-"
    own = memory["pyframe"]
    frameworks = [m for name, m in memory.items() if not is_own(name) and name != "numpy"]
    met = all(own < other for other in frameworks)
    met &= own <= memory.get("numpy", own) + MEMORY_ABOVE_NUMPY
    return "yes" if met else "no"


def _setups(result: Result) -> list[str]:
    """Return lines that say how each peer was set up, and how far its times are spread."""
    clock, lines = result.get("clock", "wall"), []
    for run in result["runs"]:
        parts = [
            f"{name}: {row['setup'] or 'as it is'}, ± {100 * spread(row[clock]):.0f} %"
            for name, row in run["peers"].items()
        ]
        parts += [f"{name} left out: {reason}" for name, reason in run["missing"].items()]
        lines.append(f"- {run['workload']}, {run['threads']}: {'; '.join(parts)}.")
    return lines


def markdown(result: Result) -> str:
    """Return everything as a page."""
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    counts = sorted({run["threads"] for run in result["runs"]})
    clock = "wall time" if result.get("clock", "wall") == "wall" else "CPU time"
    lines = [
        f"{result['machine']}, {result['cores']} cores, {result['system']}; Python "
        f"{result['python']}, {versions}; {result['date']}.",
        "",
        f"`{result['command']}`",
        "",
        f"Times are medians of {result['rounds']} rounds, {clock} a training step or a prediction, "
        f"with {result['isa']}. The floor is what the operations take at a core's peak of "
        f"{result['peak_gflops']:.0f} GFLOP/s, or the bytes at the bandwidth of the cache or "
        "memory that they fit into, whichever is longer. The ratio is to the best of all peers; "
        '"at the floor" is the ratio if pyframe took no longer than the floor.',
        *result.get("doubts", []),
        "",
    ]
    for count in counts:
        lines += [f"## {count} thread{'s' if count > 1 else ''}", "", speed_table(result, count)]
    if text := before_table(result):
        lines += ["## Time of a step, as a part of that before", "", text]
    if text := scaling_table(result):
        lines += ["## How many times faster than with one thread", "", text]
    for count in counts:
        if text := memory_table(result, count):
            lines += [f"## Peak resident memory in MB, {count} thread{'s' if count > 1 else ''}"]
            lines += ["", "In brackets what came on top of the imports.", "", text]
    lines += ["## Set-up, and half the distance between the quartiles", "", *_setups(result), ""]
    return "\n".join(lines)


def add(result: Result, other: Result) -> Result:
    """Return a result with the runs of another one, which take the place of those of their name.

    Its command says which they are, of when, and how they were run, wherever that was written to.

    Raises
    ------
    ValueError
        If they are of different processors or instruction sets.
    """
    for key in ("machine", "isa"):
        if result[key] != other[key]:
            raise ValueError(f"{key}: {result[key]} and {other[key]} do not belong into one table")
    runs = {(r["workload"], r["threads"]): r for r in [*result["runs"], *other["runs"]]}
    names = ", ".join(dict.fromkeys(r["workload"] for r in other["runs"]))
    added = re.sub(r" --(json|markdown|plot) \S+", "", other["command"])
    command = f"{result['command']}`, {names}, {other['date'].split()[0]}, by `{added}"
    versions = {**result["versions"], **other["versions"]}
    return {**result, "runs": list(runs.values()), "versions": versions, "command": command}


# ---- the pages ----


def pages_of(name: str) -> list[Path]:
    """Return the pages that show the table of a file of results."""
    marked = [p for p in PAGES if BEGIN.format(name) in p.read_text(encoding="utf-8")]
    return marked or [PAGES[0]]  # which says what is missing


def readme_section(result: Result) -> str:
    """Return what stands between the markers of `PAGES`."""
    return (
        f"{result['machine']}, {result['isa']}, one thread, float32; seconds a step, medians of "
        f"{result['rounds']} rounds, {result['date'].split()[0]}. `{result['command']}`\n\n"
        + speed_table(result, 1)
    )


def insert(text: str, section: str, name: str) -> str:
    """Return a page with the section between the markers for a file of results.

    Raises
    ------
    ValueError
        If the page has no such markers.
    """
    begin, end = BEGIN.format(name), END.format(name)
    if begin not in text or end not in text:
        raise ValueError(f"no place for the table: put {begin} and {end} into the page")
    before, rest = text.split(begin, 1)
    after = rest.split(end, 1)[1]
    return f"{before}{begin}\n{section}{end}{after}"


# ---- the picture ----

COLOURS = {
    "pyframe": "#0072b2",
    "pyframe step": "#56b4e9",
    "numpy": "#e69f00",
    "torch": "#d55e00",
    "torch.compile": "#f0a58a",
    "jax": "#009e73",
    "jax loop": "#7fcdb4",
    "sklearn": "#999999",
    "onnxruntime": "#cc79a7",
}


def plot(result: Result, path: Path, threads: int = 1) -> None:
    """Draw how long each peer takes, as a multiple of pyframe, on a logarithmic axis."""
    from matplotlib.figure import Figure

    clock, peers = result.get("clock", "wall"), _peers(result)
    runs = [r for r in result["runs"] if r["threads"] == threads and "pyframe" in r["peers"]]
    figure = Figure(figsize=(9, 1 + 1.7 * len(runs)), layout="constrained")
    axes = figure.add_subplot()
    height, labels = 0.8 / len(peers), []
    for i, run in enumerate(runs):
        seconds = medians(run, clock)
        labels.append((i, run["title"].replace(": ", "\n", 1).replace(", ", "\n", 1)))
        for j, name in enumerate(p for p in peers if p in seconds):
            factor, y = seconds[name] / seconds["pyframe"], i + (j + 0.5) * height - 0.4
            axes.barh(y, factor, 0.9 * height, color=COLOURS.get(name, "#cccccc"))
            text = f" {name}  {duration(seconds[name])}  ({factor:.2f}x)"
            axes.text(max(factor, 1), y, text, va="center", fontsize=8)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    low, high = axes.get_xlim()
    axes.set_xlim(low, high * 6)  # room for the words
    axes.set_yticks([i for i, _ in labels], [text for _, text in labels], fontsize=9)
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    count = f"{threads} thread{'s' if threads > 1 else ''}"
    axes.set_xlabel("time a step as a multiple of pyframe's (logarithmic; shorter is faster)")
    axes.set_title(f"{result['machine']}, {result['isa']}, {count}, float32", fontsize=10)
    figure.savefig(path, dpi=130)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("json", type=Path)
    parser.add_argument("--plot", type=Path, metavar="FILE")
    parser.add_argument("--markdown", type=Path, metavar="FILE")
    parser.add_argument("--readme", action="store_true")
    parser.add_argument("--add", type=Path, metavar="FILE", help="put the runs of this one in, too")
    given = parser.parse_args()
    result = json.loads(given.json.read_text(encoding="utf-8"))
    if given.add:
        result = add(result, json.loads(given.add.read_text(encoding="utf-8")))
        given.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if given.markdown:
        given.markdown.write_text(markdown(result), encoding="utf-8")
    if given.plot:
        plot(result, given.plot)
    if given.readme:
        for page in pages_of(given.json.stem):
            text = insert(page.read_text(encoding="utf-8"), readme_section(result), given.json.stem)
            page.write_text(text, encoding="utf-8")
    if not (given.plot or given.readme or given.markdown):
        print(markdown(result))


if __name__ == "__main__":
    main()
