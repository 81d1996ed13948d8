"""The stages: each takes a configuration, input folders, an output folder and a tracker, and returns its figures.

They are the only thing that components and the command line call.
"""

from exact_core.stages.common import open_stage
from exact_core.stages.evaluate import evaluate, read_confusion
from exact_core.stages.generate_masks import generate_masks
from exact_core.stages.ingest import ingest
from exact_core.stages.resolve_season import resolve_season
from exact_core.stages.train_classifier import train_classifier
from exact_core.stages.train_segmenter import train_segmenter

__all__ = [
    "evaluate",
    "generate_masks",
    "ingest",
    "open_stage",
    "read_confusion",
    "resolve_season",
    "train_classifier",
    "train_segmenter",
]
