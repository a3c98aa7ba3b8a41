"""The last script of the lesson, with its typing errors mended and its loop given a length.

What the lesson left open, the update of the weights, stays open here: after each round the
gradients are there to be used.
"""

import numpy as np

from pyframe import L2_LOSS, Linear, Placeholder, Sigmoid, forward_and_backward, node_computing_sort
from pyframe.datasets import load_boston

epoch = 3

data = load_boston()
X_, y_ = data["data"], data["target"]
X_rm = X_[:, 5]

w1_, b1_ = np.random.normal(), np.random.normal()
w2_, b2_ = np.random.normal(), np.random.normal()

X, y = Placeholder(), Placeholder()
w1, b1 = Placeholder(), Placeholder()
w2, b2 = Placeholder(), Placeholder()

# build model
output1 = Linear(X, w1, b1)
output2 = Sigmoid(output1)
y_hat = Linear(output2, w2, b2)
cost = L2_LOSS(y, y_hat)

graph_nodes = [output1, output2, y_hat, cost]
feed_dict = {X: X_rm, y: y_, w1: w1_, w2: w2_, b1: b1_, b2: b2_}

graph_sort = node_computing_sort(feed_dict, graph_nodes)

for _ in range(epoch):
    forward_and_backward(graph_sort)
    print("loss", cost.value, "gradient of w2", w2.gradients[w2])
