"""QATrainer: transformers' Trainer with a span reader's batches, loss, evaluation and checkpoints.

What it changes, and why, is in the docstring of each method; everything else is Trainer's own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import EarlyStoppingCallback, Trainer, TrainerCallback, TrainerControl, TrainerState
from transformers.trainer import TRAINING_ARGS_NAME
from transformers.trainer_utils import EvalLoopOutput

from qa import attention
from qa.batching import EvaluationBatchSampler, LengthGroupedBatchSampler, WindowCollator
from qa.checkpoints import remove_old, write_manifest
from qa.confidence.final_answers import Calibration
from qa.cpu.layers import use_cpu_layers
from qa.decoding import DecodingSettings, WindowScores
from qa.evaluation import Evaluation, find_spans, score_predictions
from qa.files import write_text
from qa.gradients import GradientCheck, OptimizerStep
from qa.layers import parameter_groups, reader_of
from qa.losses import candidate_mask, softmax_mask, span_loss
from qa.models import forward_keys
from qa.packing import position_padding, read_batch
from qa.questions import QuestionSet
from qa.reduction import in_window_order, reduce_logits
from qa.training_arguments import QATrainingArguments


class QATrainer(Trainer):
    """A Trainer that is scored on answers instead of tokens.

    find_spans, score_predictions: the post-processing hooks, `qa.evaluation`'s by default: scores of windows
        to n-best spans, and spans to metrics. Both run on every rank, so each knows the same metrics.
    calibration: threshold and temperature to answer with; None: fitted anew at every evaluation.
    undecayed: parts of names of parameters that are exempt from weight decay, as biases and LayerNorms are.
    penalty: of the model, a scalar that is added to the training loss.
    saved_with: file name -> text of what lies beside the weights in every checkpoint.
    `evaluation` holds the last evaluation's predictions, answers and metrics.
    """

    args: QATrainingArguments
    train_dataset: Any  # WindowBatches or None
    eval_dataset: Any  # QuestionSet or None

    def __init__(
        self,
        *,
        args: QATrainingArguments,
        model: nn.Module,
        train_dataset: Any = None,
        eval_dataset: QuestionSet | None = None,
        collator: WindowCollator,
        decoding: DecodingSettings,
        processing_class: Any = None,
        calibration: Calibration | None = None,
        find_spans: Callable[..., Any] = find_spans,
        score_predictions: Callable[..., Evaluation] = score_predictions,
        callbacks: list[TrainerCallback] | None = None,
        undecayed: Sequence[str] = (),
        penalty: Callable[[Any], Tensor | float] | None = None,
        saved_with: Mapping[str, str] | None = None,
    ) -> None:
        # Trainer finds QA labels only under class names with "QuestionAnswering"; another loses eval_loss.
        args.label_names = ["start_positions", "end_positions"]
        self._keep_checkpoints, args.save_total_limit = args.save_total_limit, None
        reader: Any = reader_of(model)
        packs = _packs(args, reader)
        if packs:
            attention.enable(reader)
        if args.device.type == "cpu":
            use_cpu_layers(model)
        super().__init__(
            model=model,
            args=args,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,  # type: ignore[arg-type]
            data_collator=dataclasses.replace(collator, packed=packs),
            processing_class=processing_class,
            callbacks=[*(callbacks or []), _FollowTraining(self)],
        )
        # compute_loss divides by the windows of the whole optimiser step; Trainer must not divide again.
        self.model_accepts_loss_kwargs = True
        self.decoding = decoding
        self.calibration = calibration
        self.find_spans = find_spans
        self.score_predictions = score_predictions
        self.evaluation: Evaluation | None = None
        self.undecayed = tuple(undecayed)
        self.penalty = penalty or (lambda model: 0.0)
        self.saved_with = saved_with or {}
        self._forward_keys = forward_keys(model)
        self._position_padding = position_padding(model)
        self._gradients = GradientCheck()
        self._step_windows: list[Tensor] = []
        if args.early_stopping_patience is not None:
            self.add_callback(EarlyStoppingCallback(args.early_stopping_patience))

    def get_train_dataloader(self) -> DataLoader:
        """Batches from this project's own sampler, already dealt out to the ranks.

        Accelerate's sharding would pad uneven ends with repeated windows; here every window trains exactly
        once an epoch, whatever the number of ranks, and filler rows weigh nothing.
        """
        windows = self.train_dataset
        if windows is None:
            raise ValueError("training needs a train_dataset of windows")
        self.sampler = LengthGroupedBatchSampler(
            windows.lengths,
            self._train_batch_size,
            self.args.world_size,
            self.args.process_index,
            seed=self.args.seed if self.args.data_seed is None else self.args.data_seed,
            grouping=self.args.batching,
        )
        return self._loader(windows, self.sampler)

    @property
    def trained_tokens(self) -> int:
        """Tokens trained on so far, over all ranks and resumes, padding left out."""
        return self.sampler.tokens_until(self.state.epoch or 0)

    def _loader(self, windows: Any, sampler: Any) -> DataLoader:
        return DataLoader(
            windows,
            batch_sampler=sampler,
            collate_fn=self.data_collator,
            num_workers=self.args.dataloader_num_workers,
            pin_memory=self.args.dataloader_pin_memory and torch.cuda.is_available(),
            prefetch_factor=self.args.dataloader_prefetch_factor,
        )

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader:
        """Windows longest first, dealt to the ranks here: accelerate shards batches of one size only."""
        questions = self.eval_dataset if eval_dataset is None else eval_dataset
        lengths, size = questions.windows.lengths, self.args.eval_batch_size
        ranks = (self.args.world_size, self.args.process_index)
        return self._loader(questions, EvaluationBatchSampler(lengths, size, *ranks))

    def get_test_dataloader(self, test_dataset: Any) -> DataLoader:
        """The same as for evaluation: one question gets one answer."""
        return self.get_eval_dataloader(test_dataset)

    def get_batch_samples(
        self, epoch_iterator: Iterator, num_batches: int, device: torch.device
    ) -> tuple[list, Tensor | int | None]:
        """The batches of one optimiser step, and their windows over all ranks, fillers not counted."""
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        self._step_windows = [batch["window_index"] for batch in batches]
        windows = torch.stack([batch["example_weight"].sum() for batch in batches]).sum()
        if self.args.world_size > 1:
            windows = self.accelerator.reduce(windows.to(device), reduction="sum")
        return batches, windows

    def window_losses(self, model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, Any]:
        """Loss of each window, (batch,), and the model's output."""
        output = read_batch(model, batch, self._forward_keys, self._position_padding)
        losses = span_loss(
            output.start_logits,
            output.end_logits,
            batch["start_positions"],
            batch["end_positions"],
            softmax_mask(batch, self.args.loss),
            label_smoothing=self.args.label_smoothing_factor if model.training else 0.0,
        )
        return losses, output

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """Sum of the windows' losses over the windows of the whole optimiser step.

        So the step's gradient is the mean over its windows, however they fall into ranks and micro-batches.
        DDP averages gradients over ranks, hence the factor. A penalty belongs to every window's loss, so it
        counts once in a step.
        """
        losses, output = self.window_losses(model, inputs)
        losses = losses + self.penalty(self.model)
        weights = inputs["example_weight"]
        count = weights.sum() if num_items_in_batch is None else num_items_in_batch / self.args.world_size
        loss = (losses * weights).sum() / count
        return (loss, output) if return_outputs else loss

    def _prepare_input(self, data: Any) -> Any:
        """Trainer's transfer to the device, but the host does not wait for it: batches are pinned."""
        if isinstance(data, Tensor) and not self.is_deepspeed_enabled:
            return data.to(self.args.device, non_blocking=True)
        return super()._prepare_input(data)

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        """Trainer's gradient norm, made sure to be finite: Trainer would log 0.0, go on and save NaN weights.

        Under fp16 an infinite norm is ordinary: the gradient scaler skips the step and halves its scale.
        """
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        if not self.args.fp16:
            step = OptimizerStep(self.state.global_step + 1, self.args.process_index, self._step_windows)
            self._gradients.before_step(norm, self.optimizer, step)
        return norm

    def _maybe_log_save_evaluate(self, *args: Any, **kwargs: Any) -> None:
        """Trainer's; nothing is logged, scored or saved, and no run ends, before the gradients are known."""
        if any(value for name, value in vars(self.control).items() if name.startswith("should_")):
            self._gradients.settle()
        super()._maybe_log_save_evaluate(*args, **kwargs)

    def get_decay_parameter_names(self, model: Any) -> list[str]:
        """Trainer's choice, without what is `undecayed`."""
        names = super().get_decay_parameter_names(model)
        return [name for name in names if not any(part in name for part in self.undecayed)]

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Groups by learning rate (head, layer-wise decay) and weight decay; the optimiser is Trainer's."""
        trained: Any = self.model if model is None else model
        if self.optimizer is None:
            groups = parameter_groups(
                trained,
                decayed=set(self.get_decay_parameter_names(trained)),
                weight_decay=self.args.weight_decay,
                learning_rate=self.args.learning_rate,
                head_learning_rate=self.args.head_learning_rate,
                layerwise_lr_decay=self.args.layerwise_lr_decay,
            )
            optimizer_class, options = self.get_optimizer_cls_and_kwargs(self.args, trained)
            if "params" in options or "optimizer_dict" in options or "model" in options:
                return super().create_optimizer(trained)
            self.optimizer = optimizer_class(groups, **options)
        return self.optimizer

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[None, Any, None]:
        """The best k logits of each window, its loss and its index (-1: a filler); never a row of logits."""
        batch = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            losses, output = self.window_losses(model, batch)
        mask = candidate_mask(batch, self.args.loss)
        reduced = reduce_logits(output.start_logits, output.end_logits, mask, self.decoding.n_best_size)
        index = batch["window_index"].masked_fill(batch["example_weight"] == 0, -1)
        return None, (index, losses, *reduced), None

    def evaluation_loop(
        self,
        dataloader: DataLoader,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """Trainer's loop, then the two hooks; the result is kept in `self.evaluation`."""
        questions: QuestionSet = dataloader.dataset  # type: ignore[assignment]
        output = super().evaluation_loop(
            dataloader,
            description,
            prediction_loss_only=False,
            ignore_keys=ignore_keys,
            metric_key_prefix=metric_key_prefix,
        )
        losses, *reduced = in_window_order(list(output.predictions), len(questions), questions.name)
        predictions = self.find_spans(questions, WindowScores(*reduced), self.decoding)
        self.evaluation = self.score_predictions(
            predictions,
            questions.golds() if questions.has_golds else None,
            calibration=self.calibration,
            name=questions.name,
            threshold=self.args.null_score_diff_threshold,
            bootstrap_samples=0 if self.is_in_train else self.args.bootstrap_samples,
        )
        metrics = {"loss": float(losses.mean()), **self.evaluation.metrics} if questions.has_golds else {}
        named = {f"{metric_key_prefix}_{key}": value for key, value in metrics.items()}
        return output._replace(metrics={**(output.metrics or {}), **named})

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        """Trainer's files and `saved_with`, without its pickled arguments, which name local folders."""
        super()._save(output_dir, state_dict)
        if not self.args.should_save:
            return
        folder = Path(output_dir or self.args.output_dir or ".")
        (folder / TRAINING_ARGS_NAME).unlink(missing_ok=True)
        for name, text in self.saved_with.items():
            write_text(folder / name, text)

    def seal_newest_checkpoint(self) -> None:
        """Write the manifest when every rank has written its part; only then may older checkpoints go."""
        self.accelerator.wait_for_everyone()
        if not self.args.should_save:
            return
        output_dir = Path(self.args.output_dir or ".")
        write_manifest(output_dir / f"checkpoint-{self.state.global_step}")
        best = self.state.best_model_checkpoint
        remove_old(output_dir, self._keep_checkpoints, None if best is None else Path(best))


def _packs(args: QATrainingArguments, reader: Any) -> bool:
    """Whether the model reads batches without their padding, whichever windows share one.

    Where that was asked for, and on a CPU wherever it can be done: attention goes window by window there.
    """
    if args.batching == "packed":
        return True
    at_liberty = args.batching in ("grouped", "sorted") and args.loss == "passage" and not args.torch_compile
    return at_liberty and args.device.type == "cpu" and attention.is_packable(reader)


class _FollowTraining(TrainerCallback):
    """Trainer's events that this project acts on."""

    def __init__(self, trainer: QATrainer) -> None:
        self.trainer = trainer

    def on_epoch_begin(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        # Trainer reaches a sampler's set_epoch only through accelerate's wrapper. After a resume the epoch
        # may begin in its middle, hence the cut.
        self.trainer.sampler.set_epoch(int(state.epoch or 0))

    def on_save(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        # Comes after the last file of a checkpoint has been written, on every rank.
        self.trainer.seal_newest_checkpoint()
