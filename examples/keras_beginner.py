"""Keras' tutorial for beginners, on MNIST: https://www.tensorflow.org/tutorials/quickstart/beginner.

python examples/keras_beginner.py FOLDER    # that holds the four files of MNIST
"""

import sys

import numpy as np

import pyframe as pf

train, test = pf.datasets.load_mnist(sys.argv[1])
x_train, x_test = train.images / np.float32(255), test.images / np.float32(255)
model = pf.Sequential(
    [
        pf.layers.Flatten(),
        pf.layers.Dense(128, activation="relu"),
        pf.layers.Dropout(0.2),
        pf.layers.Dense(10),
    ]
)
trainer = pf.Trainer(model, "cross_entropy", "adam", metrics=["accuracy"])
trainer.fit(x_train, train.target, epochs=5)
print("test:", trainer.evaluate(x_test, test.target))
print(model.predict_proba(x_test[:5]).round(3))
