"""What peft lacks for extractive question answering: a right wrapper, and methods it does not have.

Importing this package registers them with peft, so that `get_peft_model` and `PeftModel.from_pretrained` know
them. It imports peft, torch and transformers: seconds.
"""

from __future__ import annotations

# The import is the registration.
from qa.peft_methods import bitfit, bottleneck, layernorm
from qa.peft_methods.question_answering import install

__all__ = ["bitfit", "bottleneck", "layernorm"]

install()
