import numpy as np
import pytest
import torch

from exact_core.clues.cams import by_maximum, clue_cams, fused_cam, min_max, prototype_similarity
from exact_core.clues.masks import enlarge, pseudo_masks
from exact_core.clues.selection import BINS, cam_histogram, otsu_threshold
from exact_core.config import AffinityConfig
from exact_core.models.classifier import ClassifierOutput, Prototypes


def test_fused_cam_and_normalisations_by_hand():
    spatial = torch.tensor([[1.0, -2.0], [3.0, 0.0]])
    temporal = torch.tensor([[-1.0, 2.0], [1.0, 0.0]])
    cam = fused_cam(spatial, temporal)
    assert cam.tolist() == [[0.5, 1.0], [2.0, 0.0]]
    torch.testing.assert_close(by_maximum(cam), cam / 2, atol=1e-5, rtol=0)
    torch.testing.assert_close(min_max(cam + 1), cam / 2)
    assert by_maximum(torch.zeros(2, 2)).abs().max() == 0
    assert min_max(torch.full((2, 2), 0.7)).abs().max() == 0


@pytest.mark.parametrize(("stretch", "weakest"), [("maximum", 0.9), ("min_max", 0.0)])
def test_a_window_that_is_all_one_crop(stretch, weakest):
    """Every patch speaks for the crop, one a little less: only min-max makes background of it."""
    prototypes = Prototypes(1, 1, 2)
    prototypes.foreground.copy_(torch.tensor([[[1.0, 0.0]]]))
    prototypes.background.copy_(torch.tensor([[[0.0, 1.0]]]))
    # Cosines to the two prototypes are c and s = sqrt(1 - c * c); their difference falls to 0.9 of its maximum.
    c = 0.9 / 2 + (2 - 0.81) ** 0.5 / 2
    tokens = torch.tensor([[1.0, 0.0]]).repeat(4, 1)
    tokens[3] = torch.tensor([c, (1 - c * c) ** 0.5])
    output = ClassifierOutput(
        logits=torch.zeros(1, 1),
        spatial_logits=torch.zeros(1, 1),
        temporal_logits=torch.zeros(1, 1),
        spatial_map=torch.zeros(1, 1, 2, 2),
        temporal_map=torch.zeros(1, 1, 2, 2),
        class_tokens=tokens[None, None],
        date_tokens=torch.ones(1, 4, 3, 2),
        attention=torch.full((1, 1, 3), 0.2),
    )
    config = AffinityConfig(iterations=0)
    cams = clue_cams(output, torch.ones(1, 1), None, prototypes, config, stretch=stretch)[0, 0]
    assert cams.max().item() == pytest.approx(1.0, abs=1e-4)
    assert cams[1, 1].item() == pytest.approx(weakest, abs=1e-4)


def test_similarity_by_hand():
    prototypes = Prototypes(1, 2, 2)
    prototypes.foreground.copy_(torch.tensor([[[2.0, 0.0], [0.6, 0.8]]]))
    prototypes.background.copy_(torch.tensor([[[0.0, 1.0], [-1.0, 0.0]]]))
    tokens = torch.tensor([[[[5.0, 0.0], [0.0, 3.0], [3.0, 4.0]]]])
    # Nearest foreground minus nearest background: 1 - 0, 0.8 - 1, 1 - 0.8.
    torch.testing.assert_close(prototype_similarity(tokens, prototypes)[0, 0], torch.tensor([1.0, 0.0, 0.2]))


def test_masks_by_hand():
    cams = torch.zeros(1, 2, 1, 4)
    cams[0, 0, 0] = torch.tensor([0.9, 0.3, 0.5, 0.5])
    cams[0, 1, 0] = torch.tensor([0.1, 0.8, 0.5, 0.4])
    # A tie goes to the lower label, and to background at the threshold itself.
    assert pseudo_masks(cams, 0.45)[0, 0].tolist() == [1, 2, 1, 1]
    assert pseudo_masks(cams, 0.5)[0, 0].tolist() == [1, 2, 0, 0]
    assert pseudo_masks(cams, 0.5).dtype == torch.uint8


def test_an_untagged_class_never_enters_a_mask():
    cams = torch.rand(3, 4, 6, 6)
    cams[:, 2] = 0
    for threshold in (0.0, 0.3):
        assert not (pseudo_masks(cams, threshold) == 3).any()


def test_enlarging_keeps_the_mean_place_of_a_cam():
    cam = torch.zeros(1, 1, 4, 4)
    cam[0, 0, 1, 2] = 1
    large = enlarge(cam, 8, align_corners=False)[0, 0]
    where = (torch.arange(8.0) * large.sum(0)).sum() / large.sum()
    assert where.item() == pytest.approx(4.5)  # centre of pixels 4 and 5
    assert enlarge(cam, 8, align_corners=True)[0, 0, 0, 0] == cam[0, 0, 0, 0]


def plain_otsu(values):
    """Largest between-class variance over all thresholds, from the definition."""
    best = (-1.0, 0.0)
    for number in range(1, BINS):
        threshold = number / BINS
        low, high = values[values < threshold], values[values >= threshold]
        if len(low) and len(high):
            variance = len(low) * len(high) * (low.mean() - high.mean()) ** 2
            best = max(best, (variance, threshold))
    return best


def test_otsu_separates_two_clusters_and_agrees_with_the_definition():
    rng = np.random.default_rng(0)
    for low, high, share in ((0.2, 0.8, 0.5), (0.1, 0.6, 0.2), (0.3, 0.9, 0.8)):
        values = np.where(rng.random(4000) < share, rng.normal(high, 0.07, 4000), rng.normal(low, 0.07, 4000))
        values = (np.floor(np.clip(values, 0, 0.999) * BINS) + 0.5) / BINS
        histogram = cam_histogram(torch.from_numpy(values).reshape(4, 1, 20, 50))
        assert histogram.sum() == 4000
        threshold = otsu_threshold(histogram)
        assert low + 0.1 < threshold < high - 0.1
        variance, _ = plain_otsu(values)
        low_side, high_side = values[values < threshold], values[values >= threshold]
        ours = len(low_side) * len(high_side) * (low_side.mean() - high_side.mean()) ** 2
        assert ours == pytest.approx(variance, rel=1e-9)


def test_an_empty_valley_is_cut_in_the_middle():
    histogram = np.zeros(BINS, np.int64)
    histogram[10], histogram[89] = 5, 5
    assert otsu_threshold(histogram) == pytest.approx(0.5, abs=0.01)


def test_windows_without_a_tag_do_not_count():
    cams = torch.zeros(2, 2, 3, 3)
    cams[0, 1] = 0.7
    assert cam_histogram(cams).sum() == 9
