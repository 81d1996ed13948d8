"""Exact: from image-level crop tags and a Sentinel-2 season to a crop map (Zhu et al., CVPR 2025).

The package exports what a notebook needs (`exact_core.api`), and loads it when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from exact_core.api import TrainedSegmenter, load_segmenter, map_season, open_dataset, predict_window

__version__ = "0.1.0"
__all__ = ["TrainedSegmenter", "__version__", "load_segmenter", "map_season", "open_dataset", "predict_window"]


def __getattr__(name: str) -> Any:
    # Loaded on demand: most of the package needs no torch, and every module imports this one.
    if name in __all__:
        return getattr(import_module("exact_core.api"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
