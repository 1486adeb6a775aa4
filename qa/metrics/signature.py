"""One line that says how a score was made, to print beside it in a paper (the idea: sacreBLEU, Post 2018)."""

from __future__ import annotations

import hashlib
import json
from typing import Literal

from qa.metrics.answers import Golds, Version

METRICS_VERSION = "1"
"""Changes when a change of this package can move a score."""

ThresholdSource = Literal["given", "dev", "oracle"]


def signature(
    golds: Golds,
    *,
    version: Version = "2.0",
    missing: int = 0,
    threshold: float | None = None,
    threshold_source: ThresholdSource = "given",
    samples: int = 0,
    confidence: float = 0.95,
    seed: int = 0,
) -> str:
    """Such as `squad2|n:2|noans:1|golds:2c0274bb|norm:official|missing:0|thresh:none|boot:none|version:1`.

    golds: their count, the count without golds, and a checksum of ids and texts (independent of the order of
        the questions) go into the line: two scores with one checksum were taken against the same golds.
    missing: questions without a prediction, counted as 0.
    threshold: what null odds had to exceed for "no answer"; None: predictions scored as they stand.
    threshold_source: `given` as a setting, fitted on a `dev` split, or `oracle`: fitted on these questions.
    samples, confidence, seed: settings of the bootstrap; 0 samples = no interval.
    """
    unanswerable = sum(not texts for texts in golds.values())
    fields = [
        f"squad{version[0]}",
        f"n:{len(golds)}",
        f"noans:{unanswerable}",
        f"golds:{_checksum(golds)}",
        "norm:official",
        f"missing:{missing}",
        "thresh:none"
        if threshold is None
        else f"thresh:{float(threshold)!r}|fit:{threshold_source}|ties:grouped",
        f"boot:{samples}|conf:{confidence}|seed:{seed}" if samples else "boot:none",
        f"version:{METRICS_VERSION}",
    ]
    return "|".join(fields)


def _checksum(golds: Golds) -> str:
    """The first 8 hexadecimal digits of the SHA-256 of ids and gold texts."""
    rows = sorted((id_, list(texts)) for id_, texts in golds.items())
    return hashlib.sha256(json.dumps(rows).encode("ascii")).hexdigest()[:8]
