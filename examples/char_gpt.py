"""A small GPT that learns to write Python's documentation, character by character.

The text is what `help()` knows of the language, `pydoc_data.topics`, which is in every Python. It
prints what it writes while it learns, and draws its losses.

    python examples/char_gpt.py [--steps 600] [--save char_gpt.png]
"""

from __future__ import annotations

import argparse
import time
from pydoc_data import topics

import numpy as np
from pyframe_seq import CharacterTokenizer, TransformerDecoderBlock, generate, teacher_forcing

import pyframe as pf

CONTEXT, BATCH, UNITS, HEADS, BLOCKS, RATE = 64, 16, 128, 4, 2, 2e-3


def read() -> tuple[CharacterTokenizer, np.ndarray, np.ndarray]:
    """Return what numbers the characters, the text to learn from, and the last tenth, kept back."""
    text = "\n".join(text for _, text in sorted(topics.topics.items()))
    text = "".join(c for c in text if c == "\n" or " " <= c <= "~")
    tokenizer = CharacterTokenizer(text)
    tokens = tokenizer.encode(text)
    return tokenizer, tokens[: -len(tokens) // 10], tokens[-len(tokens) // 10 :]


def gpt(vocabulary: int) -> pf.Model:
    """Return the model: from tokens (n, CONTEXT) to the logits of those that follow."""
    x = pf.Placeholder("x", shape=(None, CONTEXT), dtype="int64")
    h = pf.layers.Embedding(vocabulary, UNITS, weight_initializer="normal")(x)
    for _ in range(BLOCKS):
        h = TransformerDecoderBlock(HEADS, attention={"rotary": True})(h)
    return pf.Model([x], [pf.layers.Dense(vocabulary)(pf.layers.LayerNorm()(h))])


def batch(of: np.ndarray, rows: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return stretches of a text, and the same ones a character later."""
    starts = rng.integers(0, len(of) - CONTEXT - 1, rows)[:, None]
    return teacher_forcing(of[starts + np.arange(CONTEXT + 1)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--save", help="write the picture to this file instead of showing it")
    given = parser.parse_args()
    tokenizer, learned, kept = read()
    print(f"{len(learned) + len(kept):,} characters, {len(tokenizer)} different ones")

    pf.set_seed(0)
    model = gpt(len(tokenizer))
    (x,), (logits,) = model.inputs, model.outputs
    y = pf.Placeholder("y", shape=(None, CONTEXT), dtype="int64")
    cost = pf.CrossEntropy(y, logits)
    plan = pf.compile(cost, optimizer=pf.optimizers.Adam(RATE))

    rng = np.random.default_rng(0)
    losses, checks = [], []
    prompt = tokenizer.encode("The ")
    begin = time.perf_counter()
    for step in range(given.steps + 1):
        if step % max(1, given.steps // 4) == 0:
            feed = dict(zip((x, y), batch(kept, 64, rng), strict=True))
            checks.append((step, float(plan.run(feed, outputs=cost))))
            sample = tokenizer.decode(generate(model, prompt, 120, temperature=0.7, seed=1))
            print(f"\nstep {step}, loss of text kept back {checks[-1][1]:.3f}:\n{sample}")
        losses.append(float(plan.step(dict(zip((x, y), batch(learned, BATCH, rng), strict=True)))))
    print(f"\n{time.perf_counter() - begin:.0f} s")

    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4))
    axes.plot(losses, color="0.7", label="batches")
    axes.plot(*zip(*checks, strict=True), "o-", label="text kept back")
    axes.set(xlabel="step", ylabel="cross-entropy of a character", title="A GPT of two blocks")
    axes.legend()
    if given.save:
        figure.savefig(given.save)
    else:
        plt.show()


if __name__ == "__main__":
    main()
