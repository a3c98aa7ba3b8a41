"""scikit-learn's "Visualization of MLP weights on MNIST", with the weights of all 40 hidden units.

python examples/sklearn_mlp_weights.py FOLDER    # that holds the four files of MNIST
"""

import sys

import pyframe as pf
from pyframe.estimators import MLPClassifier

train, test = pf.datasets.load_mnist(sys.argv[1])
x_train, x_test = (part.images.reshape(-1, 784) / 255 for part in (train, test))
mlp = MLPClassifier(
    hidden_layer_sizes=(40,), max_iter=8, alpha=1e-4, solver="sgd", verbose=10, random_state=1,
    learning_rate_init=0.2,
)  # fmt: skip
mlp.fit(x_train, train.target)
print(f"training score: {mlp.score(x_train, train.target):.4f}")
print(f"test score: {mlp.score(x_test, test.target):.4f}")
pf.plotting.image_grid(mlp.coefs_[0].T.reshape(-1, 28, 28)).savefig("weights.png")
