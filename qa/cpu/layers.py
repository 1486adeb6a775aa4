"""A model's layers, made fast on a CPU: the modules, their names and their parameters stay the same."""

from __future__ import annotations

from torch import nn

from qa.cpu.dropout import CpuDropout
from qa.cpu.products import OneDnnLinear, keep_few_kernels, onednn_is_faster


def use_cpu_layers(model: nn.Module) -> None:
    """Give every plain linear and dropout layer of a model the forward pass of `qa.cpu`.

    Call it when the model is whole: layers that are added later are torch's own. Linear layers stay as they
    are where the CPU gains nothing by it.
    """
    ours: dict[type[nn.Module], type[nn.Module]] = {nn.Dropout: CpuDropout}
    if onednn_is_faster():
        keep_few_kernels()
        ours[nn.Linear] = OneDnnLinear
    for module in model.modules():
        # Another class in place, not another module: hooks stay, and so does what others hold of it.
        if type(module) in ours:
            module.__class__ = ours[type(module)]
