"""What all tests share: no network, no files left behind, one thread, and the optional real data."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from transformers import BertForQuestionAnswering

# Read by transformers, datasets and torch when they are first imported: test modules come after this one.
_SCRATCH = tempfile.mkdtemp(prefix="qa-tests-")
atexit.register(shutil.rmtree, _SCRATCH, ignore_errors=True)
os.environ |= {
    "HF_HOME": _SCRATCH,
    "HF_DATASETS_CACHE": str(Path(_SCRATCH) / "datasets"),
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "WANDB_MODE": "disabled",
    "TOKENIZERS_PARALLELISM": "false",
    # One thread adds up in one order, and small models are fastest so.
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
}
for _name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "TRANSFORMERS_CACHE"):
    os.environ.pop(_name, None)

_DATA_DIR = os.environ.pop("QA_DATA_DIR", None)
REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of published data sets: `QA_DATA_DIR`, else `../shared/data`. Skips where there is none."""
    folder = Path(_DATA_DIR).expanduser() if _DATA_DIR else REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"{folder} is no folder; set QA_DATA_DIR to the one that holds squad/dev-v1.1.json.gz")
    return folder.resolve()


@pytest.fixture
def tiny_bert() -> Iterator[Callable[..., BertForQuestionAnswering]]:
    """Makes a BERT of a few thousand weights with a span head, in eval mode, and disturbs no other draw.

    `tiny_bert(seed=1, num_hidden_layers=2)`: keyword arguments but the seed go to BertConfig.
    """
    import torch
    from transformers import BertConfig, BertForQuestionAnswering

    sizes: dict[str, Any] = {
        "vocab_size": 60,
        "hidden_size": 16,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "max_position_embeddings": 64,
    }

    def make(*, seed: int = 0, **settings: Any) -> BertForQuestionAnswering:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return BertForQuestionAnswering(BertConfig(**(sizes | settings))).eval()

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield make
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def tiny_reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a reader of two layers, its head included, and the packaged encoder's tokenizer."""
    import torch
    from transformers import BertConfig, BertForQuestionAnswering

    from qa.models import DEFAULT_ENCODER, resolve_checkpoint
    from qa.tokenizers import load_tokenizer

    folder = tmp_path_factory.mktemp("tiny-reader")
    tokenizer = load_tokenizer(resolve_checkpoint(DEFAULT_ENCODER))
    sizes: dict[str, Any] = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        BertForQuestionAnswering(BertConfig(vocab_size=len(tokenizer), **sizes)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def vivid_reader(tiny_reader: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny reader with weights twelve times as large, so that its logits differ by more than rounding."""
    from safetensors.torch import load_file, save_file

    folder = tmp_path_factory.mktemp("vivid") / "reader"
    shutil.copytree(tiny_reader, folder)
    weights = load_file(folder / "model.safetensors")
    vivid = {name: w if "LayerNorm" in name else w * 12 for name, w in weights.items()}
    save_file(vivid, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The test runs in an empty folder, and no variable says where data is or how precise to be."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("QA_DATA_DIR", raising=False)
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION", raising=False)
    return tmp_path


@pytest.fixture
def settings_file(empty_folder: Path) -> Callable[..., str]:
    """`settings_file("seed: 1")` writes a settings file into the current folder and returns its name."""

    def write(content: str, name: str = "config.yaml") -> str:
        (empty_folder / name).write_text(content, encoding="utf-8")
        return name

    return write
