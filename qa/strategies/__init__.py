"""Ways of tuning a reader. One file each; to add one, write the file and name it here."""

from __future__ import annotations

from qa.strategies.base import Strategy
from qa.strategies.full import Full
from qa.strategies.head import Head
from qa.strategies.top_layers import TopLayers

STRATEGIES: dict[str, type[Strategy]] = {
    "full": Full,
    "head": Head,
    "top_layers": TopLayers,
}

__all__ = ["STRATEGIES", "Full", "Head", "Strategy", "TopLayers"]
