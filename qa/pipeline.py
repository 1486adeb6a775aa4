"""`transformers.pipeline("question-answering")`, which transformers 5.3 removed, works again after one call.

import qa.pipeline
qa.pipeline.register()
transformers.pipeline("question-answering")  # the reader in the box
transformers.pipeline("question-answering", model="outputs/run")
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import transformers
from transformers import AutoModelForQuestionAnswering, Pipeline
from transformers import pipelines as registry

from qa.adapters import SAVED_SETTINGS, is_adapter
from qa.confidence.final_answers import CALIBRATION_NAME
from qa.errors import InputError
from qa.hub import reader_folder
from qa.models import PACKAGED_READERS
from qa.predictor import QuestionAnswerer

TASK = "question-answering"
_FORMER = (
    *("framework", "torch_dtype", "modelcard", "args_parser", "binary_output", "feature_extractor"),
    *("use_fast", "token"),
)


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
                "model: transformers loads no adapter's span head; call qa.pipeline.register() before "
                "`from transformers import pipeline`, or use qa.QuestionAnswerer(folder)"
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
            file = reader_folder(self.answerer.reader.name) / name
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


_former_pipeline: Any = transformers.pipeline


def _only_ours(model: Any, revision: str | None) -> bool:
    """Whether transformers could not load it: the default, and adapters, here or on the hub."""
    is_name = isinstance(model, str | Path)
    return model is None or (is_name and is_adapter(reader_folder(model, revision)))


def register() -> None:
    """Make `transformers.pipeline("question-answering", ...)` known again in this process, once or often.

    `transformers.pipeline` then also takes what transformers itself cannot load: the reader in the box, which
    is the task's default, and adapters. A `pipeline` that was imported by name before this call
    takes all other readers.
    """
    removed: dict[str, str] = getattr(registry, "REMOVED_TASKS", {})
    removed.pop(TASK, None)
    # Not by register_pipeline: it warns when repeated, and marks the class for saving its source with models.
    implementation = {
        "impl": QuestionAnsweringPipeline,
        "pt": (AutoModelForQuestionAnswering,),
        "type": "text",
    }
    registry.PIPELINE_REGISTRY.supported_tasks[TASK] = implementation
    transformers.pipeline = registry.pipeline = pipeline  # type: ignore[assignment]


@functools.wraps(_former_pipeline)
def pipeline(
    task: str | None = None,
    model: Any = None,
    config: Any = None,
    tokenizer: Any = None,
    *args: Any,
    **told: Any,
) -> Any:
    """`transformers.pipeline` with the task back: the import is all that changes."""
    register()
    is_packaged = isinstance(model, str) and model in PACKAGED_READERS
    if is_packaged or (task == TASK and _only_ours(model, told.get("revision"))):
        if task not in (None, TASK):
            raise InputError(
                f"task: {task}: {model} is a reader for {TASK}; name that task, or another model"
            )
        if config is not None or args:
            raise InputError("config: this reader brings its own; give model= and tokenizer= alone")
        return QuestionAnsweringPipeline(model, tokenizer, **told)
    return _former_pipeline(task, model, config, tokenizer, *args, **told)
