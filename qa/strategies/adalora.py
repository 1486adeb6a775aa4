"""AdaLoRA (Zhang et al. 2023, arXiv:2303.10512): LoRA whose ranks move to where they matter while it trains.

A difference of weights is P diag(lambda) Q. It starts with more ranks than it may keep; the least important
lambdas are set to 0 step by step. P and Q are kept near orthogonal by a penalty on the loss.

peft 0.21 cuts the tensors in its files down to the lambdas that are left, after which they fit no model to
resume with. Here files hold them whole, zeros included: what is loaded is what was saved.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from qa.errors import InputError
from qa.strategies.adapters import TASK, AdapterStrategy, check_positive, check_share
from qa.strategies.lora import ALL_LINEAR, peft_targets

if TYPE_CHECKING:
    from peft import PeftConfig
    from torch import Tensor, nn
    from transformers import TrainerCallback

    from qa.settings import Settings


@dataclass(frozen=True, kw_only=True)
class AdaLora(AdapterStrategy):
    """Ranks before and after, and when they are given up."""

    _argument_group_name: ClassVar[str] = "strategy adalora"

    initial_rank: int = field(
        default=12, metadata={"help": "Ranks of each layer at first (there: 1.5 times target_rank)."}
    )
    target_rank: int = field(default=8, metadata={"help": "Ranks of a layer that are left, on average."})
    lora_alpha: float = field(
        default=16.0, metadata={"help": "What is added is multiplied by lora_alpha / the layer's ranks."}
    )
    lora_dropout: float = field(
        default=0.0, metadata={"help": "Dropout of what enters the thin matrices; 0 to below 1."}
    )
    lora_targets: list[str] = field(
        default_factory=lambda: [ALL_LINEAR],
        metadata={
            "help": "Ends of the names of the linear layers, or all-linear (there, section 5: all weights)."
        },
    )
    initial_share: float = field(
        default=0.1,
        metadata={"help": "Share of all steps before ranks are given up (there, SQuAD: a tenth)."},
    )
    final_share: float = field(
        default=0.45,
        metadata={"help": "Share of all steps after the last rank is given up (there, SQuAD: near a half)."},
    )
    allocation_interval: int = field(
        default=10, metadata={"help": "Steps between two decisions (there: 100, of tens of thousands)."}
    )
    orthogonality: float = field(
        default=0.1, metadata={"help": "Weight of the penalty in the loss (there, SQuAD: 0.1)."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(target_rank=self.target_rank, lora_alpha=self.lora_alpha)
        check_positive(allocation_interval=self.allocation_interval)
        shares = {"initial_share": self.initial_share, "final_share": self.final_share}
        check_share(lora_dropout=self.lora_dropout, **shares)
        peft_targets(self.lora_targets)
        if self.initial_rank <= self.target_rank:
            raise InputError(
                f"initial_rank: {self.initial_rank} is not above target_rank {self.target_rank}, so there is "
                "nothing to give up; raise it, or use strategy lora"
            )
        if sum(shares.values()) >= 1:
            raise InputError("initial_share and final_share: leave no steps between them; lower one")
        if self.orthogonality < 0:
            raise InputError(f"orthogonality: {self.orthogonality} is out of range; give 0 or more")
        if self.adapter_name is not None or len(self.saved_adapters()) > 1:
            raise InputError(
                "adapter_name: AdaLoRA moves the ranks of one adapter in a model, and allows no second; "
                "leave it out, and name one folder to train on"
            )

    def config(self, model: nn.Module) -> PeftConfig:
        """peft's AdaLoraConfig; its steps are set when training begins."""
        from peft import AdaLoraConfig

        return AdaLoraConfig(
            task_type=TASK,
            init_r=self.initial_rank,
            target_r=self.target_rank,
            lora_alpha=self.lora_alpha,  # type: ignore[arg-type]
            lora_dropout=self.lora_dropout,
            target_modules=peft_targets(self.lora_targets),
            deltaT=self.allocation_interval,
            orth_reg_weight=self.orthogonality,
            total_step=1,
        )

    def callbacks(self, model: nn.Module) -> list[TrainerCallback]:
        """Gives up ranks after every optimiser step."""
        from qa.peft_methods.rank_allocation import RankAllocation

        return [RankAllocation(model, initial_share=self.initial_share, final_share=self.final_share)]

    def penalty(self, model: nn.Module) -> Tensor:
        """orthogonality * mean over all P and Q of the Frobenius norms of P^T P - 1 and Q Q^T - 1."""
        import torch

        norms = []
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and ("lora_A" in name or "lora_B" in name):
                rows = parameter if "lora_A" in name else parameter.T
                identity = torch.eye(len(rows), device=rows.device)
                norms.append(torch.linalg.matrix_norm(rows @ rows.T - identity))
        return self.orthogonality * torch.stack(norms).mean()

    def check(self, settings: Settings) -> None:
        """Also refuses to reload the best checkpoint."""
        super().check(settings)
        if settings.training.load_best_model_at_end:
            raise InputError(
                "load_best_model_at_end: ranks are given up while AdaLoRA trains, so that an earlier "
                "checkpoint has more of them than target_rank; drop one of the two"
            )
