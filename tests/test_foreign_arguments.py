"""The arguments of Keras and PyTorch, one by one: each is taken, or answered with what to write.

The names are those of the signatures of Keras 3 and PyTorch 2. An answer that lists all arguments
there are, or picks one that merely looks alike, is none.
"""

from __future__ import annotations

import inspect
import re
from typing import Any

import numpy as np
import pytest

import pyframe as pf
from pyframe import callbacks, layers, optimizers, schedules
from pyframe.spelling import remedy

pytestmark = pytest.mark.once  # it says nothing of a kernel

KERAS_LAYER = "name trainable dtype activity_regularizer input_shape input_dim"
KERAS_WEIGHTS = (
    "kernel_initializer bias_initializer kernel_regularizer bias_regularizer kernel_constraint "
    "bias_constraint"
)
KERAS_OPTIMIZER = (
    "learning_rate weight_decay clipnorm clipvalue global_clipnorm use_ema ema_momentum "
    "ema_overwrite_frequency loss_scale_factor gradient_accumulation_steps name"
)
TORCH_OPTIMIZER = "params lr weight_decay maximize foreach capturable differentiable fused"
TORCH_LAYER = "device dtype"

# What is called here, and the names of the arguments of what is meant elsewhere.
FOREIGN: list[tuple[Any, str]] = [
    # Keras
    (pf.Sequential, "layers trainable name"),
    (pf.Model, "inputs outputs name"),
    (
        pf.Trainer,
        "optimizer loss metrics loss_weights weighted_metrics run_eagerly steps_per_execution "
        "jit_compile auto_scale_loss lr learning_rate epochs batch_size callbacks",
    ),
    (
        pf.Trainer.fit,
        "x y batch_size epochs verbose callbacks validation_split validation_data shuffle "
        "class_weight sample_weight initial_epoch steps_per_epoch validation_steps "
        "validation_batch_size validation_freq lr learning_rate optimizer loss metrics",
    ),
    (pf.Trainer.evaluate, "x y batch_size verbose sample_weight steps callbacks return_dict"),
    (pf.Trainer.predict, "x batch_size verbose steps callbacks"),
    (pf.Model.predict, "x batch_size verbose steps callbacks"),
    (pf.Model.save, "filepath overwrite zipped"),
    (pf.load, "filepath custom_objects compile safe_mode"),
    (layers.Dense, f"units activation use_bias {KERAS_WEIGHTS} {KERAS_LAYER}"),
    (
        layers.Embedding,
        "input_dim output_dim embeddings_initializer embeddings_regularizer "
        "embeddings_constraint mask_zero weights",
    ),
    (layers.Dropout, f"rate noise_shape seed {KERAS_LAYER}"),
    (
        layers.BatchNorm,
        "axis momentum epsilon center scale beta_initializer gamma_initializer "
        "moving_mean_initializer moving_variance_initializer beta_regularizer gamma_regularizer "
        "beta_constraint gamma_constraint synchronized",
    ),
    (
        layers.LayerNorm,
        "axis epsilon center scale beta_initializer gamma_initializer beta_regularizer "
        "gamma_regularizer beta_constraint gamma_constraint",
    ),
    (layers.PReLU, "alpha_initializer alpha_regularizer alpha_constraint shared_axes"),
    (optimizers.SGD, f"momentum nesterov {KERAS_OPTIMIZER}"),
    (optimizers.Adam, f"beta_1 beta_2 epsilon amsgrad {KERAS_OPTIMIZER}"),
    (optimizers.RMSProp, f"rho momentum epsilon centered {KERAS_OPTIMIZER}"),
    (optimizers.Adagrad, f"initial_accumulator_value epsilon {KERAS_OPTIMIZER}"),
    (
        callbacks.EarlyStopping,
        "monitor min_delta patience verbose mode baseline restore_best_weights start_from_epoch",
    ),
    (
        callbacks.ReduceLROnPlateau,
        "monitor factor patience verbose mode min_delta cooldown min_lr",
    ),
    (
        callbacks.ModelCheckpoint,
        "filepath monitor verbose save_best_only save_weights_only mode save_freq",
    ),
    (schedules.Exponential, "initial_learning_rate decay_steps decay_rate staircase name"),
    (schedules.Cosine, "initial_learning_rate decay_steps alpha name warmup_target warmup_steps"),
    # PyTorch
    (layers.Dense, f"in_features out_features bias {TORCH_LAYER}"),
    (layers.Dropout, "p inplace"),
    (layers.BatchNorm, f"num_features eps momentum affine track_running_stats {TORCH_LAYER}"),
    (layers.LayerNorm, f"normalized_shape eps elementwise_affine bias {TORCH_LAYER}"),
    (
        layers.Embedding,
        "num_embeddings embedding_dim padding_idx max_norm norm_type scale_grad_by_freq sparse "
        f"_weight {TORCH_LAYER}",
    ),
    (layers.PReLU, f"num_parameters init {TORCH_LAYER}"),
    (optimizers.SGD, f"momentum dampening nesterov {TORCH_OPTIMIZER}"),
    (optimizers.Adam, f"betas eps amsgrad {TORCH_OPTIMIZER}"),
    (optimizers.RMSProp, f"alpha eps centered momentum {TORCH_OPTIMIZER}"),
    (optimizers.Adagrad, f"lr_decay initial_accumulator_value eps {TORCH_OPTIMIZER}"),
    (pf.Parameter, "data requires_grad"),
    (schedules.Step, "optimizer step_size gamma last_epoch"),
    (schedules.Exponential, "optimizer gamma last_epoch"),
    (schedules.Cosine, "optimizer T_max eta_min last_epoch"),
]
CASES = [(made, name) for made, names in FOREIGN for name in dict.fromkeys(names.split())]


@pytest.mark.parametrize(
    ("made", "name"), CASES, ids=[f"{made.__qualname__}-{name}" for made, name in CASES]
)
def test_an_argument_from_elsewhere_is_taken_or_answered(made: Any, name: str) -> None:
    function = made.__init__ if isinstance(made, type) else made
    known = [key for key in inspect.signature(function).parameters if key != "self"]
    if name in known:
        return
    owners = [c.__name__ for c in made.__mro__] if isinstance(made, type) else [made.__qualname__]
    told = remedy(name, known, owners)
    assert not re.match("its arguments are|it takes none", told), told
    if found := re.fullmatch(r"write (\w+)=", told):
        assert found[1] in known
        assert told == remedy(name, [found[1]]), "it merely looks alike"
    with pytest.raises(pf.errors.UnknownArgumentError) as error:
        made(**{name: None}) if isinstance(made, type) else made(None, **{name: None})
    assert str(error.value).endswith(told)


def test_the_class_that_handed_an_argument_on_is_blamed() -> None:
    class Own(layers.Dense):
        def __init__(self, units: int) -> None:
            super().__init__(units, activaton="relu")  # type: ignore[call-arg]

    class Plain(layers.Dense):
        pass

    with pytest.raises(pf.ArgumentError, match="^Dense has no argument 'activaton'"):
        Own(3)
    with pytest.raises(pf.ArgumentError, match="^Plain has no argument 'activaton'"):
        Plain(3, activaton="relu")  # type: ignore[call-arg]
    with pytest.raises(pf.ArgumentError, match="^Own has no argument 'activation'"):
        Own(3, activation="relu")  # type: ignore[call-arg]


def test_layers_side_by_side_go_into_a_list() -> None:
    with pytest.raises(pf.ArgumentError, match=r"1 arguments by position .*into one list"):
        pf.Sequential(layers.Dense(3), layers.Dense(1))  # type: ignore[call-arg]
    with pytest.raises(pf.ArgumentError, match="units, activation.*by their names"):
        layers.Dense(3, "relu", True, 1, 2, 3, 4, 5, 6, 7)  # type: ignore[misc]


def test_a_model_is_no_layer_of_itself() -> None:
    model = pf.Sequential([layers.Dense(3)])
    outer = pf.Sequential([layers.Residual(model)])
    for add in (model.add, lambda one: setattr(model, "layers", [one])):
        for wrong in (model, outer):
            with pytest.raises(pf.ArgumentError, match="cannot be a layer of itself"):
                add(wrong)
    model.predict(np.ones((2, 3)))
    with pytest.raises(pf.ArgumentError, match="cannot be a layer of itself"):
        model.add(model)
    assert len(model.layers) == 1


def test_a_weighted_metric_may_be_asked_for_without_weights() -> None:
    def weighted(y: Any, y_hat: Any, weight: Any) -> Any:
        return pf.Mean(pf.Abs(y - y_hat) * weight)

    x, y = np.ones((4, 2)), np.ones(4)
    trainer = pf.Trainer(pf.Sequential([layers.Dense(1)]), weighted_metrics=[weighted])
    with pytest.raises(pf.ArgumentError, match="'weighted_weighted' needs three arguments"):
        trainer.fit(x, y, verbose=0)
    trainer.fit(x, y, sample_weight=np.ones(4), verbose=0)
