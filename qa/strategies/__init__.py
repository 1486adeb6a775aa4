"""Ways of tuning a reader. One file each; to add one, write the file and name it here."""

from __future__ import annotations

from qa.strategies.adalora import AdaLora
from qa.strategies.adapter import Adapter
from qa.strategies.base import Strategy
from qa.strategies.bitfit import BitFit
from qa.strategies.full import Full
from qa.strategies.head import Head
from qa.strategies.ia3 import IA3
from qa.strategies.layernorm import LayerNorm
from qa.strategies.lora import Lora
from qa.strategies.p_tuning import PTuning
from qa.strategies.prefix import Prefix
from qa.strategies.prompt import Prompt
from qa.strategies.top_layers import TopLayers

STRATEGIES: dict[str, type[Strategy]] = {
    "full": Full,
    "head": Head,
    "top_layers": TopLayers,
    "lora": Lora,
    "adalora": AdaLora,
    "ia3": IA3,
    "adapter": Adapter,
    "bitfit": BitFit,
    "layernorm": LayerNorm,
    "prompt": Prompt,
    "p_tuning": PTuning,
    "prefix": Prefix,
}

__all__ = [
    *("STRATEGIES", "AdaLora", "Adapter", "BitFit", "Full", "Head", "IA3", "LayerNorm", "Lora", "PTuning"),
    *("Prefix", "Prompt", "Strategy", "TopLayers"),
]
