"""Arguments under the names of other frameworks: refused, and answered with the name here."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any, TypeVar, cast

from pyframe.errors import UnknownArgumentError, raise_if_signalled

F = TypeVar("F", bound=Callable[..., Any])

# An argument or attribute elsewhere -> what it may be called here; the first that there is counts.
ELSEWHERE: dict[str, tuple[str, ...]] = {
    "T_0": ("period",),
    "T_max": ("total_steps",),
    "T_mult": ("growth",),
    "X_train": ("X",),
    "accumulate_grad_batches": ("accumulate",),
    "accumulation_steps": ("accumulate",),
    "activation_fn": ("activation",),
    "alpha": ("rho", "slope", "learning_rate"),
    "base_lr": ("low", "learning_rate"),
    "batch_shape": ("shape",),
    "beta_1": ("betas",),
    "beta_2": ("betas",),
    "bs": ("batch_size",),
    "clipnorm": ("clip_norm",),
    "clipvalue": ("clip_value",),
    "criterion": ("loss",),
    "decay_rate": ("decay",),
    "decay_steps": ("total_steps", "every"),
    "dilation_rate": ("dilation",),
    "dilations": ("dilation",),
    "elementwise_affine": ("affine",),
    "embedding_dim": ("units",),
    "end_lr": ("final",),
    "eps": ("epsilon",),
    "eta_min": ("final",),
    "eval_set": ("validation_data",),
    "filepath": ("path",),
    "frozen": ("trainable",),
    "gamma": ("factor", "decay"),
    "gradient_accumulation_steps": ("accumulate",),
    "global_clipnorm": ("clip_norm",),
    "input_dim": ("vocabulary",),
    "inputs": ("X",),
    "initial_accumulator_value": ("initial_accumulator",),
    "initial_learning_rate": ("learning_rate",),
    "initializer": ("weight_initializer",),
    "kernel": ("weight", "kernel_size"),
    "kernel_constraint": ("weight_constraint",),
    "kernel_initializer": ("weight_initializer",),
    "kernel_regularizer": ("weight_regularizer",),
    "learning_rate_init": ("learning_rate",),
    "loss_fn": ("loss",),
    "lr": ("learning_rate",),
    "lr_scheduler": ("schedule",),
    "mask_zero": ("padding_index",),
    "max_epochs": ("epochs",),
    "max_grad_norm": ("clip_norm",),
    "max_iter": ("epochs", "max_evaluations"),
    "max_lr": ("learning_rate", "high"),
    "maxval": ("high",),
    "metric": ("metrics",),
    "min_lr": ("min_learning_rate",),
    "minval": ("low",),
    "n_epochs": ("epochs",),
    "n_iter": ("epochs",),
    "nb_epoch": ("epochs",),
    "negative_slope": ("slope",),
    "nonlinearity": ("activation",),
    "num_embeddings": ("vocabulary",),
    "num_epochs": ("epochs",),
    "num_groups": ("groups",),
    "num_parameters": ("shared",),
    "out_channels": ("filters",),
    "out_features": ("units",),
    "output_dim": ("units",),
    "output_padding": ("padding",),
    "p": ("rate",),
    "padding_idx": ("padding_index",),
    "prob": ("rate",),
    "requires_grad": ("trainable",),
    "restore_best_weights": ("restore_best",),
    "scheduler": ("schedule",),
    "sequence": ("layers",),
    "size": ("factor", "shape"),
    "scale_factor": ("factor",),
    "solver": ("optimizer",),
    "stddev": ("std",),
    "step_size": ("every",),
    "strides": ("stride",),
    "target_shape": ("shape",),
    "threshold": ("min_delta",),
    "use_bias": ("bias",),
    "val_data": ("validation_data",),
    "val_split": ("validation_split",),
    "validation_set": ("validation_data",),
    "warmup": ("warmup_steps",),
    "weight_init": ("weight_initializer",),
    "weights_init": ("weight_initializer",),
    "x": ("X",),
    "y": ("Y",),
}

# What has no argument here, and what to do.
CHANNELS_LAST = (
    "images are channels-last, (n, height, width, channels): numpy.moveaxis(images, 1, -1) makes "
    "them so"
)
FROM_THE_INPUT = "it is found from the first input; leave it out"
INSTEAD = {
    "batch_first": "the batch is the first axis",
    "batch_input_shape": "give Sequential(..., input_shape=), without the batch",
    "class_weight": "give fit a sample_weight, or the loss its class weights, as in "
    "pyframe.losses.CrossEntropy",
    "data_format": CHANNELS_LAST,
    "decay": "give fit a schedule=",
    "device": "everything runs on the CPU",
    "gradient_accumulation_steps": "give fit accumulate=",
    "in_channels": FROM_THE_INPUT,
    "in_features": FROM_THE_INPUT,
    "input_dim": "give Sequential(..., input_shape=)",
    "input_shape": "give Sequential(..., input_shape=)",
    "normalized_shape": FROM_THE_INPUT,
    "num_features": FROM_THE_INPUT,
    "params": "a plan or a Trainer hands them to it",
    "random_state": "call pyframe.initializers.set_seed, and give fit a seed=",
}


def answering(function: F) -> F:
    """Have a function answer an argument that it has not with the name of the one that is meant.

    Raises
    ------
    UnknownArgumentError
        Then; all other errors are those of the function.

    Examples
    --------
    >>> import pyframe as pf
    >>> pf.optimizers.SGD(lr=0.1)
    Traceback (most recent call last):
        ...
    pyframe.errors.UnknownArgumentError: SGD has no argument 'lr'; write learning_rate=
    """

    @functools.wraps(function)
    def called(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except TypeError as error:
            raise_if_signalled(error)
            answer = _answer(function, called, args, kwargs)
            if not answer:
                raise
            raise UnknownArgumentError(answer) from None

    return cast(F, called)


def _answer(function: Any, called: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    """Say what is wrong with the arguments of a call; empty: nothing, as far as names go."""
    parameters = inspect.signature(function).parameters
    kinds = {p.kind for p in parameters.values()}
    known = [key for key in parameters if key != "self"]
    what = function.__name__
    if what == "__init__":  # the class that was called, unless another one has handed this on
        own = type(args[0])
        what = own.__name__ if own.__init__ is called else function.__qualname__.split(".")[-2]
    if inspect.Parameter.VAR_KEYWORD not in kinds:
        for wrong in kwargs:
            if wrong not in parameters:
                return f"{what} has no argument {wrong!r}; {remedy(wrong, known)}"
    places = [k for k in known if parameters[k].kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]
    given = len(args) - ("self" in parameters)
    if inspect.Parameter.VAR_POSITIONAL not in kinds and given > len(places):
        hint = "write the others by their names"
        if places == ["layers"]:
            hint = "put the layers into one list"
        return (
            f"{what} takes {len(places)} arguments by position ({', '.join(places)}) and was given "
            f"{given}; {hint}"
        )
    return ""


def remedy(wrong: str, known: Iterable[str]) -> str:
    """Say what to write instead of an argument that there is not."""
    known = list(known)
    named = [name for name in ELSEWHERE.get(wrong, ()) if name in known]
    if not named and wrong in INSTEAD:
        return INSTEAD[wrong]
    if not named:
        import difflib  # slow to import, and only messages need it

        named = difflib.get_close_matches(wrong, known, 1)
    if named:
        return f"write {named[0]}="
    return f"its arguments are {', '.join(known)}" if known else "it takes none"
