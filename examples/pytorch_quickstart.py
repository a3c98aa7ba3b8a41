"""PyTorch's quickstart: https://docs.pytorch.org/tutorials/beginner/basics/quickstart_tutorial.html.

    python examples/pytorch_quickstart.py FOLDER    # with the four files of MNIST or Fashion-MNIST

The same network and as many epochs, but Adam: five of SGD at a rate of 0.001 hardly begin.
"""

import sys

import numpy as np

import pyframe as pf

training_data, test_data = pf.datasets.load_mnist(sys.argv[1])
x, x_test = (part.images / np.float32(255) for part in (training_data, test_data))
print("shape of the images:", x_test.shape, "of the labels:", test_data.target.shape)

model = pf.Sequential(
    [
        pf.layers.Flatten(),
        pf.layers.Dense(512, activation="relu"),
        pf.layers.Dense(512, activation="relu"),
        pf.layers.Dense(10),
    ],
    input_shape=x.shape[1:],
)
print(model.summary())

trainer = pf.Trainer(model, "cross_entropy", pf.optimizers.Adam(1e-3), metrics=["accuracy"])
for epoch in range(5):
    trainer.fit(x, training_data.target, epochs=1, batch_size=64)
    print(f"epoch {epoch + 1}, test:", trainer.evaluate(x_test, test_data.target))

model.save("model.pyframe")
print("saved the model to model.pyframe")
model = pf.load("model.pyframe")
predicted = model.predict_classes(x_test[:1])[0]
print(f"predicted: {predicted}, actual: {test_data.target[0]}")
