"""From logits to class probabilities, and their mean and agreement with those of another model.

Axes are B windows, K crops, H W pixels.
"""

from __future__ import annotations

from torch import Tensor

__all__ = ["class_probabilities", "mean_logits", "same_class"]


def class_probabilities(logits_BKHW: Tensor) -> Tensor:
    """Softmax over the classes, float32. A pixel's values do not depend on the batch, to the last bit."""
    # torch's softmax divides all pixels of a batch among threads, and rounds those at an end of a share differently.
    logits = logits_BKHW.float()
    found = (logits - logits.amax(1, keepdim=True)).exp_()
    return found.div_(found.sum(1, keepdim=True))


def mean_logits(logits_BKHW: Tensor, others_BKHW: Tensor, *, weight: float) -> Tensor:
    """Logits (B, K + 1, H, W) of the mean of their probabilities and other ones.

    Args:
        logits_BKHW: (B, K + 1, H, W).
        others_BKHW: probabilities (B, K + 1, H, W), or 0 for all classes of a pixel that has none.
        weight: what these count, of 1.
    """
    weights = weight * others_BKHW.any(1, keepdim=True)
    own = class_probabilities(logits_BKHW)
    return (own + weights * (others_BKHW - own)).log()


def same_class(logits_BKHW: Tensor, others_BKHW: Tensor) -> Tensor:
    """Where logits and other probabilities have the same likeliest class, bool (B, H, W).

    False for a pixel without other ones.
    """
    return (logits_BKHW.argmax(1) == others_BKHW.argmax(1)) & others_BKHW.any(1)
