"""scikit-learn's "Compare stochastic learning strategies for MLPClassifier".

python examples/sklearn_mlp_training_curves.py
"""

import warnings

from matplotlib.figure import Figure
from sklearn import datasets
from sklearn.exceptions import ConvergenceWarning
from sklearn.preprocessing import MinMaxScaler

from pyframe.estimators import MLPClassifier

PLAIN, OLD, NESTEROV = {"momentum": 0}, {"nesterovs_momentum": False}, {}
STRATEGIES = {
    "constant learning-rate": ("r-", {"learning_rate": "constant", **PLAIN}),
    "constant with momentum": ("g-", {"learning_rate": "constant", **OLD}),
    "constant with Nesterov's momentum": ("b-", {"learning_rate": "constant", **NESTEROV}),
    "inv-scaling learning-rate": ("r--", {"learning_rate": "invscaling", **PLAIN}),
    "inv-scaling with momentum": ("g--", {"learning_rate": "invscaling", **OLD}),
    "inv-scaling with Nesterov's momentum": ("b--", {"learning_rate": "invscaling", **NESTEROV}),
    "adam": ("k-", {"solver": "adam", "learning_rate_init": 0.01}),
}
DATA = {
    "iris": datasets.load_iris(return_X_y=True),
    "digits": datasets.load_digits(return_X_y=True),
    "circles": datasets.make_circles(noise=0.2, factor=0.5, random_state=1),
    "moons": datasets.make_moons(noise=0.3, random_state=0),
}

warnings.simplefilter("ignore", ConvergenceWarning)  # some do not converge, as the picture shows
figure = Figure(figsize=(15, 10))
for axes, (name, (x, y)) in zip(figure.subplots(2, 2).ravel(), DATA.items(), strict=True):
    axes.set_title(name)
    x = MinMaxScaler().fit_transform(x)
    for label, (style, given) in STRATEGIES.items():
        options = {"solver": "sgd", "learning_rate_init": 0.2, **given}
        mlp = MLPClassifier(random_state=0, max_iter=15 if name == "digits" else 400, **options)
        mlp.fit(x, y)
        print(f"{name}, {label}: score {mlp.score(x, y):.4f}, loss {mlp.loss_:.4f}")
        axes.plot(mlp.loss_curve_, style, label=label)
figure.legend(*axes.get_legend_handles_labels(), ncol=3, loc="upper center")
figure.savefig("training_curves.png")
