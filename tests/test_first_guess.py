"""What users of Keras, PyTorch and scikit-learn type first, and whether it is found."""

from __future__ import annotations

from typing import Any

import pytest

import pyframe as pf
from pyframe.plugins.catalogue import folded
from pyframe.plugins.registry import registries

pytestmark = pytest.mark.once  # it says nothing of a kernel

# As arguments: loss="mse".
NAMES = {
    "losses": """
        mse mean_squared_error MeanSquaredError MSELoss mae mean_absolute_error L1Loss
        l1 l2 huber Huber HuberLoss SmoothL1Loss smooth_l1 binary_crossentropy
        BinaryCrossentropy BCELoss BCEWithLogitsLoss bce categorical_crossentropy
        CategoricalCrossentropy sparse_categorical_crossentropy
        SparseCategoricalCrossentropy CrossEntropyLoss cross_entropy nll NLLLoss
        log_loss kl_divergence KLDivergence KLDivLoss kld poisson Poisson PoissonNLLLoss
        GaussianNLLLoss hinge Hinge squared_hinge SquaredHinge categorical_hinge
        cosine_similarity CosineSimilarity CosineEmbeddingLoss logcosh log_cosh LogCosh
        triplet TripletMarginLoss contrastive focal binary_focal_crossentropy
        BinaryFocalCrossentropy dice Dice tversky ctc CTC CTCLoss quantile pinball
        mean_absolute_percentage_error mape mean_squared_logarithmic_error msle
        MultiMarginLoss MarginRankingLoss SoftMarginLoss MultiLabelSoftMarginLoss
        squared_error absolute_error
    """,
    "metrics": """
        accuracy Accuracy acc binary_accuracy BinaryAccuracy categorical_accuracy
        sparse_categorical_accuracy top_k_categorical_accuracy TopKCategoricalAccuracy
        precision Precision recall Recall f1 F1Score f1_score auc AUC roc_auc
        roc_auc_score average_precision average_precision_score log_loss brier
        brier_score_loss confusion_matrix ConfusionMatrix mae mean_absolute_error mse
        mean_squared_error rmse RootMeanSquaredError root_mean_squared_error r2 r2_score
        R2Score mape mean_absolute_percentage_error perplexity iou IoU MeanIoU
        jaccard_score balanced_accuracy balanced_accuracy_score matthews_corrcoef
        cohen_kappa_score cosine_similarity
    """,
    "optimizers": """
        sgd adam adamw nadam radam adamax rmsprop adagrad adadelta rprop lamb lars muon
        lion ftrl adafactor lbfgs sam schedule_free momentum nesterov amsgrad
    """,
    "initializers": """
        glorot_uniform xavier_uniform xavier glorot_normal he_normal he_uniform
        kaiming_uniform kaiming_normal kaiming lecun_normal lecun_uniform
        truncated_normal random_normal random_uniform normal uniform zeros zero ones one
        constant orthogonal identity eye dirac variance_scaling sparse
    """,
    "ops": """
        relu sigmoid tanh softmax log_softmax gelu silu swish mish elu selu celu
        leaky_relu relu6 hard_sigmoid hard_swish hard_tanh softplus softsign linear
        exponential exp log sqrt abs add subtract multiply divide matmul einsum where
        clip clip_by_value clamp pow power minimum maximum min max mean sum prod argmax
        argmin one_hot take gather index_select cumsum cumprod stack split concat
        concatenate cat pad tile repeat logsumexp log_sum_exp square sign floor ceil
        round transpose permute reshape expand_dims unsqueeze squeeze stop_gradient
        detach norm l2_normalize normalize var std softshrink tanhshrink hardshrink
        threshold glu swiglu geglu dropout sort topk
    """,
}
# As attributes: pf.layers.BatchNormalization.
CLASSES = {
    "layers": """
        Dense Linear Conv1D Conv2D Conv2d Conv3D Conv2DTranspose ConvTranspose2d
        DepthwiseConv2D SeparableConv2D MaxPooling2D MaxPool2D MaxPool2d
        AveragePooling2D AvgPool2d GlobalAveragePooling2D AdaptiveAvgPool2d Flatten
        Reshape Permute RepeatVector Dropout
        BatchNormalization BatchNorm1d
        BatchNorm2d LayerNormalization LayerNorm GroupNormalization GroupNorm
        InstanceNorm2d RMSNormalization RMSNorm UnitNormalization Embedding Activation
        ReLU LeakyReLU PReLU ELU Softmax Sigmoid Tanh GELU SiLU Mish Hardswish Add
        Subtract Multiply Average Maximum Minimum Concatenate Dot Masking
        Identity LSTM GRU SimpleRNN RNN MultiHeadAttention Attention
        Bidirectional TimeDistributed UpSampling2D Upsample ZeroPadding2D ZeroPad2d
        Cropping2D Maxout GLU Input InputLayer
        Sequential
    """,
    "optimizers": """
        SGD Adam AdamW Nadam NAdam RAdam Adamax RMSprop RMSProp Adagrad Adadelta Rprop
        Lamb LAMB LARS Muon Lion Ftrl Adafactor LBFGS SAM SparseAdam ASGD
    """,
    "schedules": """
        StepLR MultiStepLR ExponentialLR ExponentialDecay PolynomialDecay PolynomialLR
        CosineDecay CosineAnnealingLR CosineAnnealingWarmRestarts CosineDecayRestarts
        OneCycleLR CyclicLR LinearLR PiecewiseConstantDecay ConstantLR LambdaLR
        ReduceLROnPlateau
    """,
    "callbacks": """
        EarlyStopping ModelCheckpoint ReduceLROnPlateau LearningRateScheduler CSVLogger
        TensorBoard TerminateOnNaN LambdaCallback BackupAndRestore SwapEMAWeights
    """,
}

# What there is not, under any name. Whoever adds it takes it out of here.
MISSING = {
    kind: set(names.split())
    for kind, names in {
        "callbacks": "",
        "layers": """
            Attention Cropping2D Identity Masking Minimum RNN SeparableConv2D TimeDistributed
            UnitNormalization Upsample
        """,
        "losses": """
            CosineEmbeddingLoss MarginRankingLoss MultiMarginLoss SoftMarginLoss categorical_hinge
            mean_squared_logarithmic_error msle nll tversky
        """,
        "ops": """
            ceil cumprod floor hardshrink l2_normalize norm normalize prod round softshrink sort
            std tanhshrink threshold topk var
        """,
        "optimizers": "ASGD Adafactor Ftrl SparseAdam adafactor ftrl",
        "schedules": "ConstantLR LambdaLR PiecewiseConstantDecay ReduceLROnPlateau",
    }.items()
}


def answer(kind: str, name: str, *, as_attribute: bool) -> str:
    """Return what a user is told, or nothing if it is found."""
    module: Any = getattr(pf, kind)
    try:
        getattr(module, name) if as_attribute else registries[kind].get(name)
    except (AttributeError, pf.UnknownNameError) as error:
        return str(error)
    return ""


def is_answered(name: str, said: str) -> bool:
    """Return whether it was found, or the answer says what to write or to install."""
    near = said.partition("did you mean '")[2].partition("'")[0]
    told = ("; write pyframe.", " has it: pip install", "There is pyframe.")
    written = any(words in said for words in told)
    if "among the ops" in said:  # a metric of another thing of that name is none
        written = written and ".metrics." not in said
    return not said or written or folded(near) == folded(name)


ASKED = [(kind, name, False) for kind, names in NAMES.items() for name in names.split()]
ASKED += [(kind, name, True) for kind, names in CLASSES.items() for name in names.split()]


@pytest.mark.parametrize("kind", sorted({kind for kind, _, _ in ASKED}))
def test_a_first_guess_is_found_or_answered(kind: str) -> None:
    unanswered = {
        name
        for one, name, as_attribute in ASKED
        if one == kind and not is_answered(name, answer(kind, name, as_attribute=as_attribute))
    }
    assert unanswered == MISSING.get(kind, set())


@pytest.mark.parametrize(
    "written", ["ReLU", "LeakyReLU", "ELU", "Softmax", "Sigmoid", "Tanh", "GELU", "SiLU", "Mish"]
)
def test_an_activation_as_a_layer_is_answered_with_the_layer(written: str) -> None:
    said = answer("layers", written, as_attribute=True)
    made = eval(said.partition("; write pyframe.")[2], {"layers": pf.layers})
    assert isinstance(made, pf.layers.Activation)


EVALUATED = (*registries, "Placeholder", "Sequential", "Split", "Exp")


def test_what_is_answered_is_there() -> None:
    for kind, name, as_attribute in ASKED:
        said = answer(kind, name, as_attribute=as_attribute)
        elsewhere = said.partition("There is pyframe.")[2].partition(". Registered")[0]
        written = said.partition("; write pyframe.")[2] or elsewhere
        if written and ".Activation(" not in written:
            known = {one: getattr(pf, one) for one in EVALUATED}
            assert eval(written, known), name
