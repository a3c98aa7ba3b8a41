"""The commands for tables: train, predict, evaluate, explain, plot, summary and export."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

from pyframe.checkpoint import check_writable, write_atomically
from pyframe.errors import ArgumentError, DatasetError, raise_if_signalled, require_extra

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

INTERRUPTED = 130
DATA = "a CSV, Parquet, NPZ or JSON-lines file; - is the standard input"
EXAMPLES = {
    "train": """examples:
  pyframe train prices.csv --target price
  pyframe train prices.csv --target price --layers 128,64 --epochs 500 --out prices.pyframe
  pyframe train prices.csv --target price --resume    # after Ctrl-C
  pyframe train prices.csv --target price --tensorboard runs
  zcat big.csv.gz | pyframe train - --target label --task classification --json""",
    "predict": """examples:
  pyframe predict model.pyframe new.csv > predicted.csv
  pyframe predict model.pyframe new.csv --proba | head""",
    "export": """examples:
  pyframe export model.pyframe --out model.npz
  pyframe export model.pyframe --out model.safetensors""",
}


def add(commands: Commands) -> None:
    """Add the commands to a parser."""
    train = _command(
        commands, "train", _train, "train a network on a table, and save it as one file"
    )
    train.add_argument("data", metavar="DATA", help=DATA)
    train.add_argument("--target", required=True, metavar="COLUMN", help="what is to be predicted")
    train.add_argument("--task", choices=("auto", "classification", "regression"), default="auto")
    train.add_argument(
        "--layers", type=_layers, default=(64, 64), metavar="N,N", help="hidden units: 64,64"
    )
    train.add_argument("--epochs", type=int, default=200, metavar="N", help="at most (200)")
    train.add_argument("--batch-size", type=int, metavar="N", help="rows a step (by their number)")
    train.add_argument("--learning-rate", type=float, default=3e-3, metavar="RATE", help="(0.003)")
    train.add_argument("--optimizer", default="adamw", metavar="NAME", help="(adamw)")
    train.add_argument(
        "--validation", type=float, default=0.2, metavar="SHARE", help="rows held out (0.2)"
    )
    train.add_argument(
        "--kind", type=_kind, action="append", default=[], metavar="COLUMN=KIND",
        help="number, boolean, category, date or 'left out', where it is not found out",
    )  # fmt: skip
    train.add_argument("--seed", type=int, default=0, metavar="N", help="(0)")
    train.add_argument("--out", type=Path, default=Path("model.pyframe"), metavar="FILE")
    train.add_argument(
        "--resume", action="store_true",
        help="go on with a training that Ctrl-C has stopped, from FILE.training",
    )  # fmt: skip
    train.add_argument(
        "--tensorboard", type=Path, metavar="DIR", help="for TensorBoard: tensorboard --logdir DIR"
    )
    train.add_argument("--log", type=Path, metavar="FILE", help="a line an epoch: .csv or .jsonl")
    train.add_argument("--plot", type=Path, metavar="DIR", help="draw the losses there")
    train.add_argument("--quiet", action="store_true", help="no progress")
    predict = _command(commands, "predict", _predict, "predict the target of new rows", data=True)
    predict.add_argument("--out", type=Path, metavar="FILE", help="default: the standard output")
    predict.add_argument("--proba", action="store_true", help="a column for each class")
    for name, function, text in (
        ("evaluate", _evaluate, "compare predictions with a column that is known"),
        ("explain", _explain, "show what each column is worth: what shuffling it costs"),
    ):
        command = _command(commands, name, function, text, data=True)
        command.add_argument("--target", metavar="COLUMN", help="default: that of the training")
    plot = _command(commands, "plot", _plot, "draw the losses and the graph of a model", model=True)
    plot.add_argument("--out", type=Path, default=Path("plots"), metavar="DIR", help="(plots)")
    _command(
        commands, "summary", _summary, "show columns, scores and layers of a model", model=True
    )
    export = _command(
        commands, "export", _export, "write the weights as NPZ or safetensors, the rest as JSON",
        model=True,
    )  # fmt: skip
    export.add_argument("--out", type=Path, required=True, metavar="FILE")


def _command(
    commands: Commands, name: str, function: Any, text: str, model: bool = False, data: bool = False
) -> argparse.ArgumentParser:
    made = commands.add_parser(
        name,
        help=text,
        description=text[0].upper() + text[1:] + ".",
        epilog=EXAMPLES.get(name),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.set_defaults(run=function)
    if model or data:
        made.add_argument("model", type=Path, metavar="MODEL", help="that 'train' has written")
    if data:
        made.add_argument("data", metavar="DATA", help=DATA)
    made.add_argument("--json", action="store_true", help="print it for programs")
    return made


def _layers(given: str) -> tuple[int, ...]:
    return tuple(int(units) for units in given.split(",") if units)


def _kind(given: str) -> tuple[str, str]:
    column, equals, kind = given.rpartition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{given!r} is not COLUMN=KIND")
    return column, kind


def _tabular() -> Any:
    return require_extra("pyframe.tabular", "tabular")


@contextmanager
def _notices() -> Iterator[None]:
    """Have warnings be plain lines on the standard error."""

    def show(message: Any, *rest: Any) -> None:
        print(f"pyframe: {message}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.simplefilter("always", RuntimeWarning)
        warnings.showwarning = show  # type: ignore[assignment]
        yield


def _shown(result: Mapping[str, Any], as_json: bool) -> str:
    if as_json:
        return json.dumps(result, indent=2)
    numbers = {k: f"{v:.4g}" if isinstance(v, float) else str(v) for k, v in result.items()}
    width = max(map(len, numbers), default=0)
    return "\n".join(f"{key:<{width}}  {text}" for key, text in numbers.items())


def _train(arguments: argparse.Namespace) -> int:
    tabular = _tabular()
    check_writable(arguments.out)
    if arguments.plot is not None:
        require_extra("pyframe.plotting", "plot")
        arguments.plot.mkdir(parents=True, exist_ok=True)
        check_writable(arguments.plot / "loss.png")
    state = arguments.out.with_name(arguments.out.name + ".training")
    check_writable(state)
    if arguments.resume and not state.exists():
        raise ArgumentError(
            f"there is nothing to resume: no {state}, which Ctrl-C leaves; train without --resume"
        )
    if not arguments.resume and state.exists():
        raise ArgumentError(
            f"{state} is there, of a training that was stopped: --resume goes on with it; remove "
            "the file, or choose another --out, to begin anew"
        )
    plot = arguments.plot and arguments.plot / "loss.png"
    files = {"DATA": arguments.data, "--out": arguments.out, "--log": arguments.log}
    _check_apart(
        {**files, "its state": state, "--tensorboard": arguments.tensorboard, "--plot": plot}
    )
    callbacks = _callbacks(arguments)
    table = tabular.read_table(arguments.data)
    with _notices(), tabular.holding():  # so that Ctrl-C before the file is written loses nothing
        model = tabular.TableNetwork(
            arguments.layers,
            task=arguments.task,
            epochs=arguments.epochs,
            batch_size=arguments.batch_size,
            learning_rate=arguments.learning_rate,
            optimizer=arguments.optimizer,
            validation=arguments.validation,
            kinds=dict(arguments.kind),
            random_state=arguments.seed,
            verbose=0 if arguments.quiet else 1,
        ).fit(
            table,
            arguments.target,
            training=state,
            resume=arguments.resume,
            callbacks=callbacks,
        )
        _save(model, arguments.out)
        _tell(model, arguments, state)
    return INTERRUPTED if model.interrupted_ else 0


def _check_apart(files: Mapping[str, Path | str | None]) -> None:
    """Raise `ArgumentError` if a file would be written over what is read, or over another one."""
    seen: dict[str, str] = {}
    for what, path in files.items():
        if path is None or path == "-":
            continue
        before = seen.setdefault(os.path.realpath(path), what)
        if before != what:
            raise ArgumentError(f"{before} and {what} are both {path}: choose another file")


def _callbacks(arguments: argparse.Namespace) -> list[Any]:
    """Return what writes down the epochs of a training."""
    from pyframe.callbacks import CSVLogger, JSONLogger, TensorBoard

    made: list[Any] = []
    if arguments.tensorboard is not None:
        require_extra("tensorboardX", "tensorboard")
        made.append(TensorBoard(arguments.tensorboard))
    if arguments.log is not None:
        if arguments.log.suffix not in (".csv", ".jsonl"):
            raise ArgumentError(f"--log {arguments.log}: it must end in .csv or .jsonl")
        logger = CSVLogger if arguments.log.suffix == ".csv" else JSONLogger
        made.append(logger(arguments.log))
    return made


def _tell(model: Any, arguments: argparse.Namespace, state: Path) -> None:
    """Say what came of a training."""
    if model.interrupted_:
        what = "the best" if arguments.validation else "what was learnt"
        more = f"; the same command with --resume goes on from {state}" if state.exists() else ""
        print(f"pyframe: stopped; {arguments.out} has {what} so far{more}", file=sys.stderr)
    if arguments.plot is not None:
        _draw_losses(model, arguments.plot)
    kinds = [column["kind"] for column in model.columns_]
    result = {
        "model": str(arguments.out),
        "task": model.task_,
        "target": model.target_,
        "columns": len(kinds) - kinds.count("left out"),
        "epochs": model.n_iter_,
        "interrupted": model.interrupted_,
        **(
            {"validation": model.scores_}
            if arguments.json
            else {f"validation {key}": value for key, value in model.scores_.items()}
        ),
    }
    print(_shown(result, arguments.json))


def _save(model: Any, out: Path) -> None:
    """Write a model; if its place has become unwritable meanwhile, to another one."""
    try:
        model.save(out)
    except OSError as error:
        raise_if_signalled(error)
        other = Path(tempfile.gettempdir()) / f"{out.stem[:40]}-{os.getpid()}.pyframe"
        model.save(other)
        what = f"{error.strerror}; the model is in {other} instead"
        raise OSError(error.errno, what, str(out)) from error


def _predict(arguments: argparse.Namespace) -> int:
    tabular = _tabular()
    if arguments.out is not None:
        check_writable(arguments.out)
        _check_apart({"MODEL": arguments.model, "DATA": arguments.data, "--out": arguments.out})
    elif sys.stdout is None:
        raise ArgumentError("the standard output is closed; pass --out FILE")
    model = tabular.TableNetwork.load(arguments.model)
    table = tabular.read_table(arguments.data)
    import pandas as pd

    if arguments.proba:
        result = pd.DataFrame(model.predict_proba(table), columns=model.classes_.astype(str))
    else:
        result = pd.DataFrame({"prediction": model.predict(table)})
    text = (
        result.to_json(orient="records", lines=True)
        if arguments.json
        else result.to_csv(index=False, lineterminator="\n")
    )
    if arguments.out is not None:
        write_atomically(arguments.out, text.encode())
        return 0
    sys.stdout.write(text)
    sys.stdout.flush()
    return 0


def _evaluate(arguments: argparse.Namespace) -> int:
    model, table = _model_and_table(arguments)
    print(_shown(model.evaluate(table, arguments.target), arguments.json))
    return 0


def _explain(arguments: argparse.Namespace) -> int:
    model, table = _model_and_table(arguments)
    print(_shown(model.explain(table, arguments.target), arguments.json))
    return 0


def _model_and_table(arguments: argparse.Namespace) -> tuple[Any, Any]:
    tabular = _tabular()
    model = tabular.TableNetwork.load(arguments.model)
    if arguments.target is None and model.target_ is None:
        raise DatasetError("the model does not know the name of its target: pass --target COLUMN")
    return model, tabular.read_table(arguments.data)


def _draw_losses(model: Any, folder: Path) -> Path:
    path = folder / "loss.png"
    require_extra("pyframe.plotting", "plot").loss_curve(model.history_).savefig(path)
    return path


def _plot(arguments: argparse.Namespace) -> int:
    model = _tabular().TableNetwork.load(arguments.model)
    plotting = require_extra("pyframe.plotting", "plot")
    arguments.out.mkdir(parents=True, exist_ok=True)
    paths = [_draw_losses(model, arguments.out), arguments.out / "graph.png"]
    plotting.draw_graph(model.model_.graph).savefig(paths[1])
    lines = [str(path) for path in paths]
    print(json.dumps(lines) if arguments.json else "\n".join(lines))
    return 0


def _summary(arguments: argparse.Namespace) -> int:
    model = _tabular().TableNetwork.load(arguments.model)
    print(json.dumps(model.as_json(), indent=2) if arguments.json else model.summary())
    return 0


def _export(arguments: argparse.Namespace) -> int:
    """Write the weights, and beside them what the columns are."""
    model, out = _tabular().TableNetwork.load(arguments.model), arguments.out
    if out.suffix not in (".npz", ".safetensors"):
        raise ArgumentError(f"{str(out)!r} ends in neither .npz nor .safetensors; there is no more")
    beside = out.with_suffix(".json")
    _check_apart({"MODEL": arguments.model, "--out": out, "the JSON beside it": beside})
    for path in (out, beside):
        check_writable(path)
    import numpy as np

    weights = model.model_.get_weights()
    if out.suffix == ".npz":
        np.savez(out, **weights)
    else:
        from safetensors.numpy import save_file

        save_file({k: np.ascontiguousarray(w) for k, w in weights.items()}, os.fspath(out))
    beside.write_text(json.dumps(model.as_json(), indent=2) + "\n", encoding="utf-8")
    paths = [str(out), str(beside)]
    print(json.dumps(paths) if arguments.json else "\n".join(paths))
    return 0
