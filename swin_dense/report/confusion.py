"""Show which class is taken for which."""

from collections.abc import Sequence

import numpy as np

from swin_dense.report import page

MATRIX = 30  # classes; of more, those most often confused


def table(
    names: Sequence[str], counts: np.ndarray, caption: str, last_is_nothing: bool = False
) -> page.Html:
    """Show a confusion matrix (truth by found); of many classes, those most often confused.

    Args:
        last_is_nothing: the last row and column are the background.
    """
    mixed = counts.copy()
    np.fill_diagonal(mixed, 0)
    real = len(names) - last_is_nothing
    amount = mixed[:real, :real].sum(0) + mixed[:real, :real].sum(1)
    chosen = np.sort(np.argsort(-amount, kind="stable")[:MATRIX])
    if real > MATRIX:
        caption += f". The {MATRIX} of {real} classes that are confused most"
    if last_is_nothing:
        chosen = np.append(chosen, real)
    whole = np.maximum(1, counts.sum(1, keepdims=True))
    shown = [names[i] for i in chosen]
    part = np.ix_(chosen, chosen)
    pairs = mixed[:real, :real]
    order = np.argsort(-pairs, axis=None, kind="stable")[:10]
    rows = [divmod(int(i), real) for i in order if pairs.flat[i]]
    listing = page.table(
        "Most often confused",
        ["truth", "taken for", "how often", "share of the truth"],
        [
            [names[a], names[b], int(pairs[a, b]), f"{pairs[a, b] / whole[a, 0]:.1%}"]
            for a, b in rows
        ],
    )
    shares = page.matrix(caption, shown, shown, (counts / whole)[part], counts[part])
    return page.join([shares, listing if rows else ""])
