"""What ``pyframe inspect`` shows: what a file says of itself, without its arrays or a plugin."""

from __future__ import annotations

import importlib.metadata
import math
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pyframe.checkpoint.container import Header, read_arrays, read_header
from pyframe.checkpoint.document import ODD, TRAINING
from pyframe.checkpoint.writing import check_path
from pyframe.engine.printing import table as columns
from pyframe.errors import CheckpointError, raise_if_signalled
from pyframe.graph.spec import describe as shape_text
from pyframe.plugins.registry import BUILT_IN

SINGULAR = {"losses": "loss"}
WIDEST_CELL = 100  # characters of a path, kind or shape in the table
HEADS = ("layer", "kind", "output shape", "parameters")


def inspect(path: str | os.PathLike[str], *, verify: bool = False) -> dict[str, Any]:
    """Return what a file says of itself, as JSON takes it. No plugin is loaded.

    Parameters
    ----------
    path : path-like
    verify : bool, default False
        Read the arrays, too, one at a time, and check the checksum.

    Returns
    -------
    dict
        ``file``, ``bytes``, ``header_bytes``, ``format_version``, ``versions``, ``checksum``,
        ``kind``, ``inputs`` (name and shape), ``outputs`` (node), ``layers`` (path, kind, shape,
        parameters), ``arrays`` (name to dtype, shape and bytes), ``parameters``, ``trained`` and
        ``states`` (numbers of elements), ``packages`` (what of it came from where, what of that is
        installed, and what to do if it is not) and ``training`` (None, or where it is).

    Raises
    ------
    CheckpointError
        If the file is no model, or is damaged.
    OSError
        If it cannot be read.

    Examples
    --------
    >>> import pyframe as pf
    >>> pf.Sequential([pf.layers.Dense(1)], input_shape=(3,)).save("line.pyframe")
    >>> report = pf.checkpoint.inspect("line.pyframe")
    >>> report["parameters"], [layer["kind"] for layer in report["layers"]]
    (4, ['dense'])
    """
    check_path(path)
    source = os.fspath(path)
    with open(path, "rb") as file:
        header = read_header(file, source)
        if verify:
            read_arrays(file, header, source, lambda name: False)
    try:
        report = {"file": source, **_report(header, verify)}
        as_text(report)  # what is odd in it comes up here, if not before
        return report
    except ODD as error:
        raise_if_signalled(error)
        raise CheckpointError(
            f"{source} does not describe a model: {type(error).__name__} {error}"
        ) from error


def _report(header: Header, verified: bool) -> dict[str, Any]:
    document = header.document
    leaves = [record for record in document["nodes"] if "leaf" in record]
    counts = Counter[str]()
    for record in leaves:
        if "tensor" in record:
            counts[record["leaf"]] += _size(record)
    training = document.get("training")
    return {
        "bytes": header.file_bytes,
        "header_bytes": header.header_bytes,
        "format_version": document["format_version"],
        "versions": document.get("versions", {"pyframe": document["pyframe_version"]}),
        "checksum": {"sha256": header.digest, "verified": verified and header.digest is not None},
        "kind": document["kind"],
        "inputs": [
            {key: document["nodes"][i][key] for key in ("name", "dtype", "shape")}
            for i in document["inputs"]
        ],
        "outputs": [document["nodes"][i]["name"] for i, _ in document["outputs"]],
        "layers": list(_layers(document)),
        "loose_parameters": _loose(document),
        "parameters": counts["parameter"],
        "trained": sum(_size(r) for r in leaves if r.get("trainable")),
        "states": counts["state"],
        "nodes": len(document["nodes"]),
        "arrays": {
            name: {
                "dtype": entry.dtype.name,
                "shape": list(entry.shape),
                "bytes": entry.stop - entry.start,
            }
            for name, entry in header.entries.items()
        },
        "packages": packages(document),
        "training": None if training is None else _training(training),
    }


def _size(record: Mapping[str, Any]) -> int:
    return math.prod(record["shape"])


def _layers(document: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the layers in the order of use; a parameter counts where it comes first."""
    seen: set[int] = set()
    for i in document["order"]:
        record = document["layers"][i]
        own = dict.fromkeys(n for n in _owned(document, record) if n not in seen)
        seen.update(own)
        yield {
            "path": record["path"],
            "kind": record["layer"],
            "output_shape": record["output_shape"],
            "parameters": sum(_size(document["nodes"][n]) for n in own),
        }


def _owned(document: Mapping[str, Any], record: Mapping[str, Any]) -> Iterator[int]:
    """Yield the numbers of the parameters of a layer and of those within it; states are none."""
    for number in record["parameters"].values():
        if document["nodes"][number]["leaf"] == "parameter":
            yield number
    for sub in record["sublayers"].values():
        yield from _owned(document, sub)


def _loose(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the parameters that belong to no layer."""
    owned = {n for record in document["layers"] for n in _owned(document, record)}
    return [
        {"name": record["name"], "shape": record["shape"], "parameters": _size(record)}
        for number, record in enumerate(document["nodes"])
        if record.get("leaf") == "parameter" and number not in owned
    ]


def packages(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the packages that a model needs, and whether they are installed."""
    found: dict[tuple[str | None, str | None], dict[str, list[str]]] = {}
    for kind, origins in document["provenance"].items():
        for name, origin in origins.items():
            key = (origin["distribution"], origin["version"])
            things = found.setdefault(key, {})
            things.setdefault(kind, []).append(name)
    rows = []
    for (distribution, version), things in found.items():
        row = {"name": distribution, "version": version, "provides": things, "installed": None}
        if distribution is None:
            modules = {document["provenance"][k][n]["module"] for k in things for n in things[k]}
            row["remedy"] = f"classes of {', '.join(sorted(modules))}: pass them as custom_ops="
        else:
            try:
                row["installed"] = importlib.metadata.version(distribution)
            except (importlib.metadata.PackageNotFoundError, ValueError) as error:
                raise_if_signalled(error)
                row["remedy"] = f"pip install {distribution}"
        rows.append(row)
    return sorted(rows, key=lambda row: (row["name"] != BUILT_IN, row["name"] or ""))


def _training(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return where a training is."""
    fit = record["fit"]
    result = {
        "optimizer": _readable(record["optimizer"]),
        "steps": record["step"],
        "epochs": record["epochs_done"],
        "fit": None,
    }
    if fit is not None:
        result["fit"] = {
            "epochs": fit["epochs"],
            "batch": fit["batch"],
            "seed": fit["seed"],
            "batch_size": fit["batch_size"],
            "rows": fit["rows"],
            "last": _readable(fit["last"]),
            "callbacks": [name for name, _ in fit["callbacks"]],
        }
    return result


def _readable(value: Any) -> Any:
    """Return what `plain` has made as JSON for others: a number that JSON has not is a text."""
    if isinstance(value, list):
        return [_readable(item) for item in value]
    if isinstance(value, dict):
        if "number" in value:
            return str(value["number"])
        return {key: _readable(item) for key, item in value["dict"].items()}
    return value


# ---- as text ----


def as_text(report: Mapping[str, Any]) -> str:
    """Return a report as a page to read.

    Examples
    --------
    >>> import pyframe as pf
    >>> model = pf.Sequential([pf.layers.Dense(1)], input_shape=(3,))
    >>> model.save("line.pyframe")
    >>> as_text(inspect("line.pyframe")).splitlines()[0]
    'line.pyframe: Sequential, 4 parameters'
    """
    versions = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    arrays = report["arrays"]
    held = sum(entry["bytes"] for entry in arrays.values())
    checksum = "no checksum (format 1)" if report["checksum"]["sha256"] is None else "checksum"
    if report["checksum"]["sha256"] is not None:
        checksum += " right" if report["checksum"]["verified"] else " there, not verified"
    lines = [
        f"{report['file']}: {report['kind']}, {report['parameters']:,} parameters",
        f"  file      {report['bytes']:,} bytes, {held:,} of them {len(arrays)} arrays; {checksum}",
        f"  written   format {report['format_version']}, {versions}",
    ]
    lines += [f"  {line}" for line in _package_lines(report["packages"])]
    lines += [f"  {line}" for line in _training_lines(report)]
    page = "\n".join([*lines, "", table(report)])
    # The text of a file may come from a stranger: no control sequence in it may reach the terminal.
    return "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in page)


def _package_lines(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for row in rows:
        things = ", ".join(
            f"{len(names)} {kind if len(names) > 1 else SINGULAR.get(kind, kind.removesuffix('s'))}"
            for kind, names in row["provides"].items()
        )
        if row["name"] is None:
            yield f"needs     {things}: {row['remedy']}"
        elif row["installed"] is None:
            yield (
                f"needs     {row['name']} {row['version']} ({things}), which is not installed: "
                f"{row['remedy']}"
            )
        else:
            other = "" if row["installed"] == row["version"] else f"; here {row['installed']}"
            yield f"needs     {row['name']} {row['version']} ({things}){other}"


def _training_lines(report: Mapping[str, Any]) -> Iterator[str]:
    training = report["training"]
    if training is None:
        yield "training  not in the file"
        return
    held = sum(e["bytes"] for name, e in report["arrays"].items() if name.startswith(TRAINING))
    name = (training["optimizer"] or {}).get("name", "an optimizer")
    yield (
        f"training  {name}, {training['steps']:,} steps, {training['epochs']:,} epochs; "
        f"{held:,} bytes"
    )
    fit = training["fit"]
    if fit is not None:
        last = "  ".join(f"{key} {float(value):.5g}" for key, value in fit["last"].items())
        batch = f" and {fit['batch']} batches" if fit["batch"] else ""
        yield (
            f"fit       {fit['epochs']} epochs{batch} of {fit['rows']:,} rows, batch size "
            f"{fit['batch_size']}, seed {fit['seed']}; {last}"
        )
        if fit["callbacks"]:
            yield f"          with {', '.join(fit['callbacks'])}"


def table(report: Mapping[str, Any]) -> str:
    """Return the layers, their shapes and parameters as `Model.summary` does."""
    rows: list[tuple[str, ...]] = [HEADS]
    for item in report["inputs"]:
        rows.append((item["name"], "input", shape_text(item["shape"]), ""))
    for layer in report["layers"]:
        shape, count = shape_text(layer["output_shape"]), f"{layer['parameters']:,}"
        rows.append((layer["path"], layer["kind"], shape, count))
    for item in report["loose_parameters"]:
        rows.append(
            (item["name"], "parameter", shape_text(item["shape"]), f"{item['parameters']:,}")
        )
    # A column is as wide as its longest text, which a hostile file may make a megabyte.
    cells = [(_cell(path), _cell(kind), _cell(shape), count) for path, kind, shape, count in rows]
    return layer_table(cells, report["parameters"], report["trained"], report["states"])


def _cell(text: str) -> str:
    return text if len(text) <= WIDEST_CELL else f"{text[: WIDEST_CELL - 3]}..."


def layer_table(rows: Sequence[tuple[str, ...]], parameters: int, trained: int, states: int) -> str:
    """Return rows of texts as a table with a line of sums; the first row is the heading."""
    head, rule, *lines = columns(rows, (3, 4))
    end = f"{parameters:,} parameters, {trained:,} of them trained"
    end += f"; {states:,} numbers of state" if states else ""
    return "\n".join([head, rule, *lines, rule, end])
