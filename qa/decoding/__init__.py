"""Logits -> n-best spans: the one decoder of evaluation, prediction and the predictor. NumPy only, pure."""

from qa.decoding.n_best import DecodingSettings, Duplicates, decode
from qa.decoding.window_scores import WindowScores, WindowTable, top_k

__all__ = ["DecodingSettings", "Duplicates", "WindowScores", "WindowTable", "decode", "top_k"]
