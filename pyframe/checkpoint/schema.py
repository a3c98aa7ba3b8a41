"""The contents of a document: rules for its fields, checked before anything reads them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pyframe.attributes import Rule, flag, number, optional, whole
from pyframe.errors import ArgumentError, CheckpointError, raise_if_signalled
from pyframe.outcomes import DTYPES, GIVES

# More than any training has, and far from where sums and products of them leave 64 bits.
MOST = 2**48 - 1
MOST_EPOCHS = 2**31 - 1


def text(value: Any, what: str) -> str:
    """Return a text: a rule."""
    if isinstance(value, str):
        return value
    raise ArgumentError(f"{what} is {value!r:.80}; it must be a text")


def outcome(value: Any, what: str) -> str:
    """Return what an output gives: a rule."""
    if value in GIVES:
        return str(value)
    raise ArgumentError(f"{what} is {value!r:.80}; it must be one of {', '.join(GIVES)}")


def label_dtype(value: Any, what: str) -> str:
    """Return the dtype of an array of classes: a rule."""
    if DTYPES.fullmatch(text(value, what)):
        return str(value)
    raise ArgumentError(f"{what} is {value!r:.80}, which no labels have")


def true_or_false(value: Any, what: str) -> bool:
    """Return what JSON has as true or false: a rule."""
    if isinstance(value, bool):
        return flag(value, what)
    raise ArgumentError(f"{what} is {value!r:.80}; it must be true or false")


def plain_value(value: Any, what: str) -> Any:
    """Return a value as `pyframe.checkpoint.plain` or a packer of arrays has made it: a rule."""
    if isinstance(value, list):
        return [plain_value(item, what) for item in value]
    if isinstance(value, dict):
        if list(value) == ["dict"]:
            return table_of(plain_value)(value["dict"], what)
        if list(value) == ["tensor"] or list(value) == ["number"]:
            text(next(iter(value.values())), what)
        elif set(value) != {"array", "shape", "dtype"}:
            raise ArgumentError(f"{what} has {sorted(value)!r:.80}, which is no value")
    return value


def tensor(value: Any, what: str) -> Any:
    """Return the place of an array: a rule."""
    return record(tensor=text)(value, what)


def list_of(rule: Rule) -> Rule:
    """Return the rule of a list, all of whose items keep to one rule."""

    def each(value: Any, what: str) -> Any:
        if not isinstance(value, list):
            raise ArgumentError(f"{what} is {value!r:.80}; it must be a list")
        for i, item in enumerate(value):
            rule(item, f"{what}[{i}]")
        return value

    return each


def table_of(rule: Rule) -> Rule:
    """Return the rule of a table of names, all of whose values keep to one rule."""

    def each(value: Any, what: str) -> Any:
        if not isinstance(value, dict):
            raise ArgumentError(f"{what} is {value!r:.80}; it must be a table of names")
        for key, item in value.items():
            rule(item, f"{what}.{key!s:.80}")
        return value

    return each


def pair(first: Rule, second: Rule) -> Rule:
    """Return the rule of a list of two."""

    def both(value: Any, what: str) -> Any:
        if not isinstance(value, list) or len(value) != 2:
            raise ArgumentError(f"{what} is {value!r:.80}; it must be a list of two")
        first(value[0], f"{what}[0]")
        second(value[1], f"{what}[1]")
        return value

    return both


def record(**fields: Rule) -> Rule:
    """Return the rule of a table that has these fields, and maybe others of a later version."""

    def each(value: Any, what: str) -> Any:
        if not isinstance(value, dict):
            raise ArgumentError(f"{what} is {value!r:.80}; it must be a table")
        for key, rule in fields.items():
            if key not in value:
                raise ArgumentError(f"{what} has no {key!r}")
            rule(value[key], f"{what}.{key}")
        return value

    return each


def named(value: Any, what: str) -> Any:
    """Return the arguments that make a part anew, its name among them: a rule."""
    record(dict=record(name=text))(value, what)
    return plain_value(value, what)


def table(value: Any, what: str) -> Any:
    """Return a table with whatever fields: a rule."""
    return record()(value, what)


count = whole(at_least=0, at_most=MOST)
epochs = whole(at_least=0, at_most=MOST_EPOCHS)

ENDS = {"kind": text, "inputs": list_of(count), "outputs": list_of(pair(count, count))}

# The nodes and layers are looked at when they are built, one by one.
MODEL = record(
    **ENDS,
    nodes=list_of(table),
    layers=list_of(table),
    order=list_of(count),
    provenance=table_of(
        table_of(record(distribution=optional(text), version=optional(text), module=text))
    ),
)

HELD = record(sublayers=table_of(table), model=record(**ENDS, layers=list_of(text)))

FIT = record(
    seed=whole(at_least=0, at_most=2**64 - 1),
    batch_size=whole(at_least=1, at_most=MOST),
    rows=count,
    validation_rows=count,
    shuffle=true_or_false,
    columns=list_of(text),
    first_epoch=epochs,
    epochs=epochs,
    batch=count,
    sums=tensor,
    stopped=true_or_false,
    seconds=number(at_least=0),
    history=record(dict=table_of(tensor)),
    last=record(dict=table_of(plain_value)),
    callbacks=list_of(pair(text, plain_value)),
)

RECORD = record(
    optimizer=named,
    optimizer_is_whole=true_or_false,
    step=count,
    epochs_done=epochs,
    weighted=true_or_false,
    arrays=table_of(text),
    trainer=table_of(plain_value),
    fit=optional(FIT),
)


def check_model(document: Mapping[str, Any]) -> None:
    """Raise `ArgumentError` unless the document of a model has all its parts."""
    MODEL(document, "the document")
    _check_ends(document)


def check_held(layer: Mapping[str, Any]) -> None:
    """Raise `ArgumentError` unless the record of a layer that is a model has all its parts."""
    HELD(layer, "the layer")
    _check_ends(layer["model"])


def _check_ends(model: Mapping[str, Any]) -> None:
    if not model["outputs"]:
        raise ArgumentError("the model has no output")
    outcomes = model.get("outcomes", [])  # older files have none
    list_of(pair(outcome, optional(list_of(plain_value))))(outcomes, "outcomes")
    if len(outcomes) not in (0, len(model["outputs"])):
        raise ArgumentError(f"there are {len(outcomes)} outcomes of {len(model['outputs'])}")
    list_of(optional(label_dtype))(model.get("label_dtypes", []), "label_dtypes")
    if model["kind"] == "Sequential" and len(model["inputs"]) != 1:
        raise ArgumentError(f"a Sequential has one input, and this one {len(model['inputs'])}")


def check_training(training: Mapping[str, Any], source: str) -> None:
    """Raise `CheckpointError` unless the document of a training is as `Trainer.save` makes it."""
    try:
        RECORD(training, "training")
        fit = training["fit"]
        if fit is not None:
            list_of(pair(text, plain_value))(fit.get("watchers", []), "training.fit.watchers")
        # Of batches that came one by one it is not known how many an epoch has: there are no rows.
        if fit is not None and fit["rows"] and fit["batch"] > -(-fit["rows"] // fit["batch_size"]):
            raise ArgumentError(
                f"training.fit.batch is {fit['batch']}, and {fit['rows']} rows have not so many "
                f"batches of {fit['batch_size']}"
            )
    except (ArgumentError, RecursionError) as error:
        raise_if_signalled(error)
        raise CheckpointError(
            f"{source} does not describe a training that can go on: {error}; write it again with "
            "trainer.save(path)"
        ) from error
