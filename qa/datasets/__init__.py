"""Questions, contexts and answers in the forms people have them -> one checked examples table.

`load_examples` is the door; `DATASETS` says which forms there are. `datasets` and `pyarrow` are imported on
first use.
"""

from qa.datasets.checking import RecordProblem
from qa.datasets.judging import OnBadRecord
from qa.datasets.load import LoadedExamples, content_digest, load_examples
from qa.datasets.readers import DATASETS, Reader
from qa.datasets.report import problem_report, summary, write_problem_report
from qa.datasets.table import example_from_row, examples_features, table_from_examples

__all__ = [
    "DATASETS",
    "LoadedExamples",
    "OnBadRecord",
    "Reader",
    "RecordProblem",
    "content_digest",
    "example_from_row",
    "examples_features",
    "load_examples",
    "problem_report",
    "summary",
    "table_from_examples",
    "write_problem_report",
]
