"""`transformers.pipeline("question-answering")`, which transformers 5.3 removed, works again after one call.

import qa.pipeline
qa.pipeline.register()
transformers.pipeline("question-answering", model="outputs/run")
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import transformers
from transformers import AutoModelForQuestionAnswering, Pipeline
from transformers import pipelines as registry

from qa.adapters import SAVED_SETTINGS, is_adapter
from qa.confidence.final_answers import CALIBRATION_NAME
from qa.errors import InputError
from qa.predictor import QuestionAnswerer

TASK = "question-answering"
_FORMER = ("framework", "torch_dtype", "modelcard", "args_parser", "binary_output", "feature_extractor")


class QuestionAnsweringPipeline(Pipeline):
    """A `qa.predictor.QuestionAnswerer` in the shape of a transformers pipeline: called in the same way.

    Made of a loaded model; the tokenizer is loaded from where the model came from, with its case guarded,
    unless one is given. Where the model came from a finished run, so do settings, temperature and threshold.
    """

    default_input_names = "question,context"  # type: ignore[assignment]
    # Loaded here, because transformers lower-cases for cased vocabularies.
    _load_tokenizer = False  # type: ignore[assignment]
    _load_processor = False  # type: ignore[assignment]
    _load_image_processor = False  # type: ignore[assignment]
    _load_video_processor = False  # type: ignore[assignment]
    _load_feature_extractor = False  # type: ignore[assignment]

    def __init__(
        self,
        model: Any,
        tokenizer: Any = None,
        *,
        task: str = TASK,
        device: Any = None,
        dtype: Any = None,
        **told: Any,
    ) -> None:
        if getattr(model, "_hf_peft_config_loaded", False):
            raise InputError(
                "model: transformers loads no adapter's span head; use qa.QuestionAnswerer(folder), or "
                "pipeline() of qa.pipeline"
            )
        told = {name: value for name, value in told.items() if name not in _FORMER}
        self.answerer = QuestionAnswerer(model, tokenizer, device=device, dtype=dtype, **told)
        super().__init__(
            self.answerer.model, tokenizer=self.answerer.tokenizer, task=task, device=self.answerer.device
        )

    def __call__(self, *args: Any, **told: Any) -> Any:
        """As `QuestionAnswerer.__call__`."""
        return self.answerer(*args, **told)

    def rank(self, *args: Any, **told: Any) -> Any:
        """As `QuestionAnswerer.rank`."""
        return self.answerer.rank(*args, **told)

    def explain(self, *args: Any, **told: Any) -> Any:
        """As `QuestionAnswerer.explain`."""
        return self.answerer.explain(*args, **told)

    create_sample = staticmethod(QuestionAnswerer.create_sample)

    def save_pretrained(self, save_directory: Any, **told: Any) -> None:
        """Model and tokenizer, and what came with them: settings and calibration."""
        folder = Path(save_directory)
        self.model.save_pretrained(folder, **told)
        self.answerer.tokenizer.save_pretrained(folder)
        for name in (SAVED_SETTINGS, CALIBRATION_NAME):
            file = Path(self.answerer.reader.name).expanduser() / name
            if file.is_file() and file.resolve() != (folder / name).resolve():
                (folder / name).write_bytes(file.read_bytes())

    # transformers' stages, for subclasses and callers that reach for them: all the work is in the second.
    def _sanitize_parameters(self, **told: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        return {}, told, {}

    def preprocess(self, input_: Any, **told: Any) -> Any:
        return input_

    def _forward(self, input_tensors: Any, **told: Any) -> Any:
        return self.answerer(input_tensors, **told)

    def postprocess(self, model_outputs: Any, **told: Any) -> Any:
        return model_outputs


def register() -> None:
    """Make `transformers.pipeline("question-answering", ...)` known again in this process, once or often."""
    removed: dict[str, str] = getattr(registry, "REMOVED_TASKS", {})
    removed.pop(TASK, None)
    # Not by register_pipeline: it warns when repeated, and marks the class for saving its source with models.
    implementation = {
        "impl": QuestionAnsweringPipeline,
        "pt": (AutoModelForQuestionAnswering,),
        "type": "text",
    }
    registry.PIPELINE_REGISTRY.supported_tasks[TASK] = implementation


def pipeline(task: str | None = None, model: Any = None, *args: Any, **told: Any) -> Any:
    """`transformers.pipeline` with the task back: the import is all that changes."""
    register()
    if task == TASK and (model is None or (isinstance(model, str | Path) and is_adapter(model))):
        return QuestionAnsweringPipeline(model, **told)
    return transformers.pipeline(task, model, *args, **told)  # type: ignore[call-overload, arg-type]
