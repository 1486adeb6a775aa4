"""A reader's parts by depth, embeddings, layers from bottom to top, head, and what follows for the optimiser.

Works on a reader and on one that peft has wrapped, whose `base_model` is the whole reader, head included.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qa.errors import InputError

if TYPE_CHECKING:
    from torch import nn


def reader_of(model: nn.Module) -> nn.Module:
    """The encoder with its span head, taken out of peft's wrapper where there is one."""
    unwrap: Any = getattr(model, "get_base_model", None)
    return model if unwrap is None else unwrap()


def encoder_of(model: nn.Module) -> nn.Module:
    """Everything below the head. Raises InputError where head and encoder cannot be told apart."""
    reader: Any = reader_of(model)
    encoder = getattr(reader, getattr(reader, "base_model_prefix", "") or "base_model", reader)
    if encoder is reader:
        raise InputError(f"{type(reader).__name__}: has no encoder apart from its head; use strategy full")
    return encoder


def layers_of(model: nn.Module) -> nn.ModuleList:
    """The encoder's layers, bottom first: its one list of `num_hidden_layers` modules.

    Raises InputError for encoders without one: ALBERT's layers share their weights, XLM's lie in several
    lists, Funnel's in blocks.
    """
    from torch import nn

    reader: Any = reader_of(model)
    count = getattr(reader.config, "num_hidden_layers", None)
    lists = {
        name: module
        for name, module in encoder_of(model).named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == count
    }
    outermost = [lists[name] for name in _outermost(lists)]
    if len(outermost) != 1:
        raise InputError(
            f"{type(reader).__name__}: its {count} layers share their weights or lie in several lists, so "
            "nothing can be set by layer; use strategy full or head, without layerwise_lr_decay"
        )
    return outermost[0]


def embeddings_of(model: nn.Module) -> nn.ModuleList:
    """Everything that makes vectors of token ids, LayerNorm and projection to the layers' width included.

    These are the encoder's modules outside the layers that are embeddings or are named so: BERT `embeddings`;
    ELECTRA also `embeddings_project`; MPNet and DeBERTa also the relative positions that all layers share.
    """
    from torch import nn

    inside = {id(module) for module in layers_of(model).modules()}
    found = {
        name: module
        for name, module in encoder_of(model).named_modules()
        if id(module) not in inside
        and (isinstance(module, nn.Embedding) or "embed" in name.rpartition(".")[2])
    }
    return nn.ModuleList(found[name] for name in _outermost(found))


def _outermost(names: Any) -> list[str]:
    """Names of modules that lie in no other of `names`."""
    return [name for name in names if not any(name.startswith(f"{other}.") for other in names)]


def depths(model: nn.Module) -> dict[str, int]:
    """Parameter name -> depth: 0 for the embeddings, 1..L for the layers, L + 1 for all else (the head)."""
    layers = layers_of(model)
    by_identity = {id(p): depth for depth, layer in enumerate(layers, start=1) for p in layer.parameters()}
    by_identity |= {id(p): 0 for p in embeddings_of(model).parameters()}
    return {name: by_identity.get(id(p), len(layers) + 1) for name, p in model.named_parameters()}


def parameter_groups(
    model: nn.Module,
    *,
    decayed: set[str],
    weight_decay: float,
    learning_rate: float,
    head_learning_rate: float | None,
    layerwise_lr_decay: float,
) -> list[dict[str, Any]]:
    """Trainable parameters grouped for an optimiser, each group with its own learning rate and weight decay.

    A layer k below the top learns at `learning_rate * layerwise_lr_decay ** k` (discriminative fine-tuning,
    Howard and Ruder 2018, section 3.2); the embeddings stand one below the lowest layer. The reader's
    parameters outside its encoder are the head and learn at `head_learning_rate`; what belongs to no layer (a
    final LayerNorm, peft's prompts) learns at `learning_rate`.

    decayed: names of the parameters that weight decay applies to.
    Returns: groups that hold every trainable parameter once.
    """
    by_depth = depths(model) if layerwise_lr_decay != 1.0 else {}
    top = max(by_depth.values(), default=0) - 1
    encoder = {id(p) for p in encoder_of(model).parameters()}
    head = {id(p) for p in reader_of(model).parameters()} - encoder
    groups: dict[tuple[float, float], list[Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if id(parameter) in head:
            rate = learning_rate if head_learning_rate is None else head_learning_rate
        else:
            rate = learning_rate * layerwise_lr_decay ** max(0, top - by_depth.get(name, top))
        groups.setdefault((rate, weight_decay if name in decayed else 0.0), []).append(parameter)
    return [{"params": ps, "lr": rate, "weight_decay": decay} for (rate, decay), ps in groups.items()]
