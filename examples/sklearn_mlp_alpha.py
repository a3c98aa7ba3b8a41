"""scikit-learn's "Varying regularization in multi-layer perceptron".

python examples/sklearn_mlp_alpha.py
"""

import numpy as np
from matplotlib.figure import Figure
from sklearn.datasets import make_circles, make_classification, make_moons
from sklearn.inspection import DecisionBoundaryDisplay
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from pyframe.estimators import MLPClassifier

alphas = np.logspace(-1, 1, 5)
x, y = make_classification(
    n_features=2, n_redundant=0, n_informative=2, random_state=0, n_clusters_per_class=1
)
separable = (x + 2 * np.random.RandomState(2).uniform(size=x.shape), y)
moons = make_moons(noise=0.3, random_state=0)
circles = make_circles(noise=0.2, factor=0.5, random_state=1)

figure = Figure(figsize=(17, 9), layout="constrained")
grid = figure.subplots(3, len(alphas) + 1, subplot_kw={"xticks": (), "yticks": ()})
for row, (x, y) in zip(grid, (moons, circles, separable), strict=True):
    x_train, x_test, y_train, y_test = train_test_split(x, y, test_size=0.4, random_state=42)
    for axes, alpha in zip(row[1:], alphas, strict=True):
        mlp = MLPClassifier((10, 10), solver="lbfgs", alpha=alpha, random_state=1, max_iter=2000)
        net = make_pipeline(StandardScaler(), mlp).fit(x_train, y_train)
        DecisionBoundaryDisplay.from_estimator(net, x, cmap="RdBu", alpha=0.8, ax=axes)
        score = net.score(x_test, y_test)
        axes.set(title=f"alpha {alpha:.2f}: {score:.2f}", xlabel="", ylabel="")
        print(f"alpha {alpha:.2f}: score {score:.2f}")
    for axes in row:
        axes.scatter(*x_train.T, c=y_train, cmap="RdBu", edgecolors="black", s=25)
        axes.scatter(*x_test.T, c=y_test, cmap="RdBu", edgecolors="black", s=25, alpha=0.6)
figure.savefig("alpha.png")
