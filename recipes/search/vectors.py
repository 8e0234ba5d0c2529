"""Many vectors that lie as tokens do, for what has to be measured with a million of them."""

import numpy as np

from recipes.common.paths import BUILD

WIDTH = 768
SPREAD = 0.6  # of a vector around the token that it was drawn at, which has length 1
AT_ONCE = 10_000


def draw(count: int, seed: int, width: int = WIDTH) -> np.ndarray:
    """Unit vectors [count, width] in float16, around the real tokens of `recipes.search.evaluate embed`.

    The tokens are turned into `width` dimensions, always the same way. The spread around them falls with the root of the
    dimension's number, in directions of its own.
    """
    data = np.load(BUILD / "search-embeddings.npz")
    tokens = np.concatenate([data[f"{name}/maskinversion"] for name in ("trained", "held-out")])
    tokens /= np.linalg.norm(tokens, axis=1, keepdims=True)
    fixed = np.random.default_rng(0)
    turned = tokens @ np.linalg.qr(fixed.normal(size=(width, tokens.shape[1])))[0].T.astype(np.float32)
    spectrum = 1 / np.sqrt(1 + np.arange(width))
    directions = (np.linalg.qr(fixed.normal(size=(width, width)))[0] * spectrum / np.linalg.norm(spectrum)).T.astype(np.float32)
    rng = np.random.default_rng((seed, 1))
    found = np.empty((count, width), np.float16)
    for first in range(0, count, AT_ONCE):
        some = found[first : first + AT_ONCE]
        noise = rng.standard_normal((len(some), width), dtype=np.float32) @ directions
        drawn = turned[rng.integers(len(turned), size=len(some))] + SPREAD * noise
        some[:] = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
    return found


def exact(vectors: np.ndarray, questions: np.ndarray, k: int) -> np.ndarray:
    """The rows [Q, k] of the k largest products of vectors [N, D] with each of questions [Q, D], in float32."""
    asked = questions.astype(np.float32)
    best = np.full((len(asked), k), -np.inf, np.float32)
    rows = np.zeros((len(asked), k), np.int64)
    for first in range(0, len(vectors), AT_ONCE):
        scores = asked @ vectors[first : first + AT_ONCE].astype(np.float32).T
        numbers = np.broadcast_to(np.arange(first, first + scores.shape[1]), scores.shape)
        scores, numbers = np.hstack([best, scores]), np.hstack([rows, numbers])
        order = np.argpartition(-scores, k - 1, axis=1)[:, :k]
        best, rows = np.take_along_axis(scores, order, 1), np.take_along_axis(numbers, order, 1)
    order = np.argsort(-best, axis=1)
    return np.take_along_axis(rows, order, 1)


def memory() -> int:
    """Bytes that this process holds now, files that it has mapped among them."""
    import psutil

    return psutil.Process().memory_info().rss
