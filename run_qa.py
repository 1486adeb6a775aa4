"""Fine-tune, evaluate and ask a span reader: one run, top to bottom.

    accelerate launch run_qa.py --config experiments/quickstart.yaml
    accelerate launch run_qa.py --config experiments/base.yaml experiments/datasets/squad1.yaml --seed 7
    accelerate launch run_qa.py --model_name_or_path outputs/run --do_predict --test_file questions.json

Cost: the first takes about a minute on two CPU cores. `--help` lists the settings, `--dry_run` shows what
they lead to.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from qa.errors import InputError, NotFiniteError


def main(arguments: Sequence[str] | None = None) -> None:
    """Settings, data, reader, training, scores, files. arguments: the command line's words, by default."""
    from qa.arguments import parse_settings

    settings = parse_settings(arguments)
    args = settings.training

    from transformers import set_seed
    from transformers.utils.logging import disable_progress_bar

    from qa.session import Session

    disable_progress_bar()  # of reading and writing weights; training has its own
    set_seed(args.seed)
    session = Session(settings)
    session.load_questions()
    session.load_reader()
    session.report_data()
    if args.dry_run:
        session.show_dry_run()
        return
    session.prepare_output()
    trainer = session.make_trainer()
    if args.eval_before_training:
        session.evaluate(trainer, "before")
    if args.do_train:
        session.train(trainer)
    if args.do_eval:
        session.evaluate(trainer, "eval")
    if args.do_predict:
        session.evaluate(trainer, "predict")
    session.finish(trainer)


if __name__ == "__main__":
    try:
        main()
    except (InputError, NotFiniteError) as error:
        # Every rank comes to the same end; one of them says it.
        if os.environ.get("RANK", "0") == "0":
            print(f"run_qa.py: {error}", file=sys.stderr)
        sys.exit(2)
