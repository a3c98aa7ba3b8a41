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
from pyframe_seq import CharacterTokenizer, TransformerDecoderBlock, generate

import pyframe as pf

CONTEXT, BATCH, UNITS, HEADS, BLOCKS = 64, 16, 128, 4, 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--save", help="write the picture to this file instead of showing it")
    given = parser.parse_args()
    text = "\n".join(text for _, text in sorted(topics.topics.items()))
    text = "".join(c for c in text if c == "\n" or " " <= c <= "~")
    tokenizer = CharacterTokenizer(text)
    tokens = tokenizer.encode(text)
    learned, kept = tokens[: -len(tokens) // 10], tokens[-len(tokens) // 10 :]
    print(f"{len(text):,} characters, {len(tokenizer)} different ones")

    pf.set_seed(0)
    x = pf.Placeholder("x", shape=(None, CONTEXT), dtype="int64")
    h = pf.layers.Embedding(len(tokenizer), UNITS, weight_initializer="normal")(x)
    for _ in range(BLOCKS):
        h = TransformerDecoderBlock(HEADS, attention={"rotary": True})(h)
    logits = pf.layers.Dense(len(tokenizer))(pf.layers.LayerNorm()(h))
    model = pf.Model([x], [logits])
    y = pf.Placeholder("y", shape=(None, CONTEXT), dtype="int64")
    cost = pf.CrossEntropy(y, logits)
    plan = pf.compile(cost, optimizer=pf.optimizers.Adam(2e-3))

    rng = np.random.default_rng(0)

    def batch(of: np.ndarray, rows: int) -> dict[pf.Placeholder, np.ndarray]:
        starts = rng.integers(0, len(of) - CONTEXT - 1, rows)[:, None]
        rows_of = of[starts + np.arange(CONTEXT + 1)]
        return {x: rows_of[:, :-1], y: rows_of[:, 1:]}

    losses, checks = [], []
    prompt = tokenizer.encode("The ")
    begin = time.perf_counter()
    for step in range(given.steps + 1):
        if step % max(1, given.steps // 4) == 0:
            feed = batch(kept, 64)
            checks.append((step, float(plan.run(feed, outputs=cost))))
            sample = tokenizer.decode(generate(model, prompt, 120, temperature=0.7, seed=1))
            print(f"\nstep {step}, loss of text kept back {checks[-1][1]:.3f}:\n{sample}")
        losses.append(float(plan.step(batch(learned, BATCH))))
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
