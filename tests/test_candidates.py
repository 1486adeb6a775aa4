"""How the search cuts windows into groups of bounded size; what it finds is tested in test_decoding.py."""

from __future__ import annotations

from collections import Counter

import numpy as np

from qa.decoding.candidates import _groups


def test_groups_cover_every_window_once_and_hold_whole_examples() -> None:
    rng = np.random.default_rng(1)
    for _ in range(300):
        sizes = rng.integers(0, 6, rng.integers(0, 12))
        index = np.repeat(np.arange(len(sizes)), sizes).astype(np.int32)
        most = int(rng.integers(1, 15))
        groups = list(_groups(index, most))
        assert [window for first, last in groups for window in range(first, last)] == list(range(len(index)))
        for first, last in groups:
            assert first < last
            assert last == len(index) or index[last - 1] != index[last]
            examples = Counter(index[first:last].tolist())
            assert len(examples) == 1 or len(examples) * max(examples.values()) <= most
