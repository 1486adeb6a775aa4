"""Examples -> tokenized windows with labels and offsets: the same for training, evaluation and prediction."""

from qa.windows.building import WINDOWS_VERSION, Windows, WindowSettings, build_windows

__all__ = ["WINDOWS_VERSION", "WindowSettings", "Windows", "build_windows"]
