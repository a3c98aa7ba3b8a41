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
    "_weight": ("weight_initializer",),
    "accumulate_grad_batches": ("accumulate",),
    "accumulation_steps": ("accumulate",),
    "activation_fn": ("activation",),
    "alpha": ("rho", "slope", "learning_rate"),
    "alpha_constraint": ("constraint",),
    "alpha_initializer": ("initializer",),
    "alpha_regularizer": ("regularizer",),
    "base_lr": ("low", "learning_rate"),
    "batch_shape": ("shape",),
    "beta_1": ("betas",),
    "beta_2": ("betas",),
    "beta_constraint": ("shift_constraint",),
    "beta_regularizer": ("shift_regularizer",),
    "bs": ("batch_size",),
    "clipnorm": ("clip_norm",),
    "clipvalue": ("clip_value",),
    "criterion": ("loss",),
    "custom_objects": ("custom_ops",),
    "data": ("value",),
    "decay_rate": ("decay",),
    "decay_steps": ("total_steps", "every"),
    "dilation_rate": ("dilation",),
    "dilations": ("dilation",),
    "elementwise_affine": ("affine",),
    "embedding_dim": ("units",),
    "embeddings_constraint": ("weight_constraint",),
    "embeddings_initializer": ("weight_initializer",),
    "embeddings_regularizer": ("weight_regularizer",),
    "end_lr": ("final",),
    "eps": ("epsilon",),
    "eta_min": ("final",),
    "eval_set": ("validation_data",),
    "filepath": ("path",),
    "frozen": ("trainable",),
    "gamma": ("factor", "decay"),
    "gamma_constraint": ("scale_constraint",),
    "gamma_regularizer": ("scale_regularizer",),
    "global_clipnorm": ("clip_norm",),
    "gradient_accumulation_steps": ("accumulate",),
    "init": ("initializer",),
    "initial_accumulator_value": ("initial_accumulator",),
    "initial_learning_rate": ("learning_rate",),
    "initializer": ("weight_initializer",),
    "input_dim": ("vocabulary",),
    "inputs": ("X",),
    "kernel": ("weight", "kernel_size"),
    "kernel_constraint": ("weight_constraint",),
    "kernel_initializer": ("weight_initializer",),
    "kernel_regularizer": ("weight_regularizer",),
    "learning_rate_init": ("learning_rate",),
    "loss_fn": ("loss",),
    "lr": ("learning_rate",),
    "lr_decay": ("learning_rate_decay",),
    "lr_scheduler": ("schedule",),
    "max_epochs": ("epochs",),
    "max_grad_norm": ("clip_norm",),
    "max_iter": ("epochs", "max_evaluations"),
    "max_lr": ("learning_rate", "high"),
    "max_norm": ("clip_norm",),
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
    "out_channels": ("filters",),
    "out_features": ("units",),
    "output_dim": ("units",),
    "output_padding": ("padding",),
    "p": ("rate",),
    "padding_idx": ("padding_index",),
    "prob": ("rate",),
    "requires_grad": ("trainable",),
    "restore_best_weights": ("restore_best",),
    "scale_factor": ("factor",),
    "scheduler": ("schedule",),
    "sequence": ("layers",),
    "size": ("factor", "shape"),
    "solver": ("optimizer",),
    "stddev": ("std",),
    "step_size": ("every",),
    "strides": ("stride",),
    "T_0": ("period",),
    "T_max": ("total_steps",),
    "T_mult": ("growth",),
    "target_shape": ("shape",),
    "threshold": ("min_delta",),
    "use_bias": ("bias",),
    "val_data": ("validation_data",),
    "val_split": ("validation_split",),
    "validation_set": ("validation_data",),
    "warmup": ("warmup_steps",),
    "weight_init": ("weight_initializer",),
    "weights": ("weight_initializer",),
    "weights_init": ("weight_initializer",),
    "x": ("X",),
    "X_train": ("X",),
    "y": ("Y",),
}

# What has no argument here, and what to do.
CHANNELS_LAST = (
    "images are channels-last, (n, height, width, channels): numpy.moveaxis(images, 1, -1) makes "
    "them so"
)
FROM_THE_INPUT = "it is found from the first input; leave it out"
RATE = "give it to the optimizer, as in optimizer=pyframe.optimizers.Adam(1e-3)"
FIT = "give it to fit"
TRAINER = "give it to the Trainer"
AVERAGE = 'give fit the callback pyframe.callbacks.WeightAverage(decay, every="step")'
ALWAYS = "it is always so; leave it out"
NONE = "there is no such choice here; leave it out"
DTYPE = "it is that of the input: Sequential(..., dtype=)"
INSTEAD = {
    **dict.fromkeys(["compile", "safe_mode", "overwrite", "foreach", "fused", "zipped"], ALWAYS),
    **dict.fromkeys(["affine", "bias", "center", "elementwise_affine"], ALWAYS),
    **dict.fromkeys(["scale", "track_running_stats"], ALWAYS),
    **dict.fromkeys(["auto_scale_loss", "capturable", "differentiable", "jit_compile"], NONE),
    **dict.fromkeys(["dampening", "inplace", "loss_scale_factor", "run_eagerly"], NONE),
    **dict.fromkeys(["steps_per_execution", "start_from_epoch", "synchronized", "name"], NONE),
    **dict.fromkeys(["ema_momentum", "ema_overwrite_frequency", "use_ema"], AVERAGE),
    **dict.fromkeys(["batch_size", "callbacks", "epochs", "verbose"], FIT),
    **dict.fromkeys(["loss", "metrics", "optimizer"], TRAINER),
    **dict.fromkeys(["learning_rate", "lr"], RATE),
    **dict.fromkeys(
        ["frozen", "requires_grad", "trainable"], "set it afterwards: layer.trainable = False"
    ),
    **dict.fromkeys(
        ["beta_initializer", "gamma_initializer"],
        "scale begins as 1 and shift as 0; set them afterwards: layer.scale.value = ...",
    ),
    **dict.fromkeys(
        ["moving_mean_initializer", "moving_variance_initializer"],
        "the mean begins as 0 and the variance as 1",
    ),
    "activity_regularizer": "add the penalty in a loss of your own",
    "axis": "it is the last",
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
    "dtype": DTYPE,
    "maximize": "negate the loss",
    "noise_shape": "pyframe.layers.SpatialDropout drops whole channels",
    "save_freq": "write every=, in epochs",
    "save_weights_only": "write training=False, which is the default",
    "seed": "give fit a seed=",
}

SHOWS_NOTHING = {
    "callbacks": "callbacks take part in fit; leave it out",
    "steps": "it takes all rows, or all batches, that it is given: give it fewer",
    "verbose": "it shows nothing; leave it out",
}

# The same for one method, or one class and those derived from it, where it means something else.
THERE: dict[str, dict[str, str]] = {
    "Cosine": {
        "alpha": "write final=, a rate: alpha * learning_rate",
        "warmup_target": "it warms up to learning_rate; leave it out",
    },
    "EarlyStopping": {"baseline": "the first value is what others are measured by; leave it out"},
    "Embedding": {
        "mask_zero": "write padding_index=0",
        "max_norm": "write weight_constraint=pyframe.constraints.MaxNorm(max_norm, axis=-1): all "
        "rows keep to it, not only those that are used",
        "norm_type": "pyframe.constraints.MaxNorm has the Euclidean norm, norm_type=2",
        "scale_grad_by_freq": "the gradient of a row is the sum over its uses; leave it out",
    },
    "Exponential": {"staircase": "pyframe.schedules.Step falls in steps"},
    "Model": {
        "name": "within others its layer has one: model.as_layer().name = ...",
        "trainable": "set it afterwards: model.trainable = False",
    },
    "Model.predict": SHOWS_NOTHING,
    "PReLU": {
        "num_parameters": "write shared=True for num_parameters=1; else it is found from the input",
        "shared_axes": "each channel has a slope; with shared=True all have the same",
    },
    "Schedule": {
        "last_epoch": "a fit that is resumed goes on at its step; leave it out",
        "optimizer": "give the optimizer the schedule, as in pyframe.optimizers.SGD(schedule)",
    },
    "Trainer.evaluate": {**SHOWS_NOTHING, "return_dict": "it always returns a dict; leave it out"},
    "Trainer.fit": {
        "validation_batch_size": "it is found from what memory takes; leave it out",
        "validation_freq": "validation follows each epoch; leave it out",
        "validation_steps": "all of validation_data is used: give it fewer rows",
    },
    "Trainer.predict": SHOWS_NOTHING,
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
    what, owners = function.__name__, [function.__qualname__]
    if what == "__init__":  # the class that was called, unless another one has handed this on
        own = type(args[0])
        owners = [base.__name__ for base in own.__mro__]
        what = own.__name__ if own.__init__ is called else function.__qualname__.split(".")[-2]
    if inspect.Parameter.VAR_KEYWORD not in kinds:
        for wrong in kwargs:
            if wrong not in parameters:
                return f"{what} has no argument {wrong!r}; {remedy(wrong, known, owners)}"
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


def remedy(wrong: str, known: Iterable[str], owners: Iterable[str] = ()) -> str:
    """Say what to write instead of an argument that a method, or a class and its bases, has not."""
    told = [THERE[owner][wrong] for owner in owners if wrong in THERE.get(owner, ())]
    if told:
        return told[0]
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
