"""From which page of Python's documentation is this passage? A transformer beside a bag of words.

The pages are the longest of `pydoc_data.topics`, which is in every Python; the passages, 40 words
each, do not overlap, and every fifth is kept back. Passages have different lengths at the ends of
pages: the attention sees `lengths` words. It draws which pages are taken for which.

    python examples/text_classifier.py [--epochs 6] [--save text_classifier.png]
"""

from __future__ import annotations

import argparse
import re
import time
from collections import Counter
from pydoc_data import topics

import numpy as np
from pyframe_seq import LearnedPositions, TransformerEncoderBlock, buckets, pad

import pyframe as pf

PAGES, WORDS, KNOWN, UNITS = 6, 40, 1500, 32


def passages() -> tuple[list[str], list[list[str]], np.ndarray]:
    """Return the names of the pages, passages in words, and the page of each."""
    pages = dict(sorted(topics.topics.items(), key=lambda item: -len(item[1]))[: 2 * PAGES : 2])
    rows, labels = [], []
    for label, text in enumerate(pages.values()):
        words = re.findall(r"[a-z]+|[^a-z\s]", text.lower())
        cut = [words[i : i + WORDS] for i in range(0, len(words), WORDS)]
        rows += cut
        labels += [label] * len(cut)
    return list(pages), rows, np.array(labels)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--save", help="write the picture to this file instead of showing it")
    given = parser.parse_args()
    names, rows, labels = passages()
    kept = np.arange(len(rows)) % 5 == 0
    counts = Counter(w for row, k in zip(rows, kept, strict=True) if not k for w in row)
    numbers = {w: i + 2 for i, (w, _) in enumerate(counts.most_common(KNOWN))}  # 1: unknown
    values, lengths, mask = pad([[numbers.get(w, 1) for w in row] for row in rows], WORDS)

    pf.set_seed(0)
    x = pf.Placeholder("x", shape=(None, WORDS), dtype="int64")
    n = pf.Placeholder("lengths", shape=(None,), dtype="int64")
    m = pf.Placeholder("mask", shape=(None, WORDS))
    y = pf.Placeholder("y", shape=(None,), dtype="int64")
    h = LearnedPositions(WORDS)(pf.layers.Embedding(KNOWN + 2, UNITS)(x))
    h = TransformerEncoderBlock(4, dropout=0.1)(h, n)
    there = pf.Reshape(m, (-1, WORDS, 1))
    logits = pf.layers.Dense(PAGES)(pf.Sum(h * there, axis=1) / pf.Sum(there, axis=1))
    bag = pf.Placeholder("bag", shape=(None, KNOWN + 2))
    plain = pf.layers.Dense(PAGES)(bag)
    words = np.zeros((len(rows), KNOWN + 2), np.float32)
    for i, (row, length) in enumerate(zip(values, lengths, strict=True)):
        np.add.at(words[i], row[:length], 1 / length**0.5)

    answers = {}
    for name, out, feeds in (
        ("bag of words", plain, {bag: words}),
        ("transformer", logits, {x: values, n: lengths, m: mask}),
    ):
        begin = time.perf_counter()
        plan = pf.compile(pf.CrossEntropy(y, out), optimizer=pf.optimizers.Adam(3e-3))
        learned = np.flatnonzero(~kept)
        for epoch in range(given.epochs):
            for batch in buckets(lengths[learned], 32, seed=epoch):
                at = learned[batch]
                plan.step({**{p: a[at] for p, a in feeds.items()}, y: labels[at]})
        answers[name] = pf.compile(out).run({p: a[kept] for p, a in feeds.items()}).argmax(1)
        right = (answers[name] == labels[kept]).mean()
        print(f"{name:>12}: {right:.1%} of {kept.sum()} right, {time.perf_counter() - begin:.1f} s")

    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(11, 5), layout="constrained")
    for part, (name, answer) in zip(axes, answers.items(), strict=True):
        table = np.zeros((PAGES, PAGES), int)
        np.add.at(table, (labels[kept], answer), 1)
        part.imshow(table, cmap="Blues")
        for i, j in np.ndindex(table.shape):
            part.text(j, i, table[i, j], ha="center", va="center")
        part.set(title=name, xlabel="taken for", yticks=range(PAGES), yticklabels=names)
        part.set_xticks(range(PAGES), names, rotation=45, ha="right")
    if given.save:
        figure.savefig(given.save)
    else:
        plt.show()


if __name__ == "__main__":
    main()
