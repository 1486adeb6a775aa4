"""N-best spans -> answers with an honest confidence: no-answer threshold and temperature, fitted on dev."""

from qa.confidence.final_answers import Calibration, FinalAnswer, choose, read_calibration
from qa.confidence.temperature import expected_calibration_error
from qa.confidence.thresholds import cross_fitted_f1, fit_calibration

__all__ = [
    "Calibration",
    "FinalAnswer",
    "choose",
    "cross_fitted_f1",
    "expected_calibration_error",
    "fit_calibration",
    "read_calibration",
]
