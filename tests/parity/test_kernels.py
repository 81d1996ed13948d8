"""Parts of the method on recorded inputs of their own, with the settings of the recipe `pastis24`."""

import re

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from exact_core.clues.affinity import _neighbours, neighbour_affinity, propagate
from exact_core.clues.masks import enlarge, pseudo_masks, strongest_class
from exact_core.clues.prototypes import prototype_clues, sinkhorn
from exact_core.clues.sweep import sweep_confusions
from exact_core.data.windows.dataset import VOID
from exact_core.losses import segmentation_loss
from exact_core.metrics import Scores, average_precision, confusion_matrix
from exact_core.models.classifier import Prototypes
from exact_core.models.published import published_name
from exact_core.training.schedule import learning_rate, published_rate
from tests.parity.test_classifier import close


def test_sinkhorn(recorded, recipe):
    arrays, config = recorded("sinkhorn.npz"), recipe.classifier.prototypes
    names = [name.removesuffix("_similarity") for name in arrays if name.endswith("_similarity")]
    for name in names:
        matrix = sinkhorn(
            torch.from_numpy(arrays[f"{name}_similarity"]), iterations=config.iterations, epsilon=config.epsilon
        )
        close(matrix, arrays[f"{name}_matrix"], a=1e-5)
        np.testing.assert_array_equal(matrix.argmax(-1), arrays[f"{name}_argmax"])
    assert names


def test_prototype_steps(recorded, recipe):
    arrays = recorded("prototypes.npz")
    tags = torch.from_numpy(arrays["cls_labels"])
    prototypes = Prototypes(*arrays["fg_before"].shape)
    prototypes.foreground.copy_(torch.from_numpy(arrays["fg_before"]))
    prototypes.background.copy_(torch.from_numpy(arrays["bg_before"]))
    steps = sum(name.endswith("_features") for name in arrays)
    assert steps
    for step in (f"step{number}" for number in range(steps)):
        features = torch.from_numpy(arrays[f"{step}_features"]).requires_grad_()
        tokens = features.flatten(3).transpose(2, 3)
        cams = torch.from_numpy(arrays[f"{step}_cams"]).flatten(2)
        clues = prototype_clues(tokens, cams, tags, prototypes, recipe.classifier.prototypes)
        for side, before, name in (
            (clues.foreground, prototypes.foreground, "fg"),
            (clues.background, prototypes.background, "bg"),
        ):
            close(side.loss_per_class, arrays[f"{step}_{name}_entropy_per_class"], a=1e-6, r=1e-5)
            close(side.loss, arrays[f"{step}_{name}_entropy"], r=1e-5)
            distance = distance_per_class(tokens.detach(), side.assignment, before)
            close(distance, arrays[f"{step}_{name}_distance_per_class"], r=1e-5)
            if f"{step}_{name}_assignment" in arrays:
                ours = side.assignment.view(-1, len(tags), *features.shape[-2:]).transpose(0, 1)
                np.testing.assert_array_equal(ours, arrays[f"{step}_{name}_assignment"])
        loss = recipe.classifier.loss.contrast * clues.loss
        close(loss, arrays[f"{step}_loss_cbl"], r=1e-5)
        loss.backward()
        norms = features.grad.transpose(0, 1).flatten(1).norm(dim=1)
        close(norms, arrays[f"{step}_grad_features_of_loss_cbl_norm_per_class"], a=1e-9, r=1e-4)
        clues.move(prototypes)
        close(prototypes.foreground, arrays[f"{step}_fg_after"], a=1e-6)
        close(prototypes.background, arrays[f"{step}_bg_after"], a=1e-6)


def distance_per_class(tokens_BKPD, assignment_KR, prototypes_KND):
    """Mean (1 - 10 cosine)^2 of a class's rows to the prototypes they are assigned to, by plain loops; 0 without rows.

    The published code logs it; no loss uses it, so it exists in this test only: it checks every assignment.
    """
    result = torch.zeros(len(prototypes_KND))
    for k, assigned in enumerate(assignment_KR):
        rows = F.normalize(tokens_BKPD[:, k].flatten(0, 1), dim=-1)[assigned >= 0]
        if len(rows):
            cosine = (rows * F.normalize(prototypes_KND[k], dim=-1)[assigned[assigned >= 0]]).sum(-1)
            result[k] = (1 - 10 * cosine).square().mean()
    return result


def test_affinity(recorded, recipe):
    arrays = recorded("affinity_propagation.npz")
    cases = [name.removesuffix("_embedding") for name in arrays if name.endswith("_embedding")]
    assert cases
    for case in cases:
        config = recipe.classifier.affinity
        if case == "one_iteration":
            config = config.model_copy(update={"iterations": 1})
        affinity = neighbour_affinity(torch.from_numpy(arrays[f"{case}_embedding"]), config)
        close(affinity, arrays[f"{case}_affinity"][:, 0], a=1e-5)
        cams = propagate(torch.from_numpy(arrays[f"{case}_cam"])[:, 0], affinity, config)
        close(cams, arrays[f"{case}_output"][:, 0], a=1e-5)


def test_order_of_neighbours(recorded, recipe):
    """The published neighbour selectors are convolutions; ours are slices."""
    kernel = recorded("cls_state_dict.safetensors")["taap_module.kernel"]
    dilation = recipe.classifier.affinity.dilation
    image = torch.randn(2, 1, 5, 7)
    padded = F.pad(image, (dilation,) * 4, mode="replicate")
    found = torch.cat(_neighbours(image, dilation), 1)
    torch.testing.assert_close(found, F.conv2d(padded, kernel, dilation=dilation))


def test_masks_and_thresholds(recorded, recipe):
    arrays = recorded("pseudo_labels.npz")
    truth = arrays["ground_truth"].copy()
    truth[truth == arrays["void_value"]] = VOID
    classes, side = arrays["cls_labels"].shape[1], truth.shape[-1]
    firm = ~arrays["fragile_pixels"]
    (shown,) = [name for name in arrays if name.startswith("pseudo_labels_step")]
    shown_step, shown_percent = map(int, re.fullmatch(r"pseudo_labels_step(\d+)_threshold(\d+)", shown).groups())
    best = (-1.0, 0, 0.0)
    compared = 0
    for number, step in enumerate(arrays["checkpoint_steps"]):
        small = arrays["cams"][number]
        assert not small[arrays["cls_labels"] == 0].any()
        cams = enlarge(torch.from_numpy(small), side, align_corners=recipe.masks.align_corners)
        if number == 0:
            background, *crops = arrays["upsampled_first_sample"]
            assert not background.any()
            close(cams[0], crops, a=1e-6)
        matrices = sweep_confusions(*strongest_class(cams), truth, arrays["thresholds"], classes)
        for column, threshold in enumerate(arrays["thresholds"]):
            masks = pseudo_masks(cams, float(threshold)).numpy()
            matrix = confusion_matrix(truth, masks, classes=classes)
            np.testing.assert_array_equal(matrices[column], matrix)
            scores = Scores(matrix)
            oa = 100 * scores.oa_micro
            assert abs(oa - arrays["oa"][number, column]) < 0.05
            assert abs(100 * scores.miou_published - arrays["miou"][number, column]) < 0.05
            if oa > best[0]:
                best = (oa, int(step), float(threshold))
                chosen, chosen_firm = masks, firm[number]
            if step == shown_step and round(100 * threshold) == shown_percent:
                np.testing.assert_array_equal(masks[firm[number]], arrays[shown][firm[number]])
                compared += 1
    assert compared == 1
    assert best[1] == arrays["best_step"]
    assert best[2] == pytest.approx(float(arrays["best_threshold"]))
    assert best[0] == pytest.approx(float(arrays["best_oa"]), abs=0.05)
    np.testing.assert_array_equal(chosen[chosen_firm], arrays["best_pseudo_labels"][chosen_firm])


def test_segmenter(recorded, segmenter, series):
    arrays = recorded("seg.npz")
    logits = segmenter.train()(series)
    close(logits, arrays["logits"], a=1e-4, r=1e-4)
    target = torch.from_numpy(arrays["labels"]).long()
    target[target == int(arrays["void_value"])] = VOID
    loss = segmentation_loss(logits, target)
    close(loss, arrays["loss_mean"], r=1e-5)
    pixels = (target != VOID).sum()
    assert pixels == arrays["valid_pixels"]
    close(loss * pixels, arrays["loss_per_pixel_sum"], r=1e-5)
    loss.backward()
    norms = dict(zip(arrays["grad_norm_names"].tolist(), arrays["grad_norms"], strict=True))
    for name, parameter in segmenter.named_parameters():
        expected = norms[published_name(name)]
        np.testing.assert_allclose(parameter.grad.norm().item(), expected, rtol=1e-3, atol=1e-5)


def test_metrics(recorded):
    arrays = recorded("metrics.npz")
    cases = [name.removesuffix("_confusion") for name in arrays if name.endswith("_confusion")]
    assert cases
    columns = "acc_prec_rec_f1_iou"
    for case in cases:
        classes = len(arrays[f"{case}_confusion"]) - 1
        matrix = confusion_matrix(arrays[f"{case}_labels"], arrays[f"{case}_predicted"], classes=classes)
        np.testing.assert_array_equal(matrix, arrays[f"{case}_confusion"])
        scores = Scores(matrix)
        # The published F1 is undefined, and dropped, where precision is: a class never predicted costs nothing.
        f1 = np.where(np.isnan(scores.precision + scores.recall), np.nan, scores.f1)
        # Its 0 / 0 of a class that is all wrong is undefined as well.
        f1 = np.where(scores.precision + scores.recall == 0, np.nan, f1)
        rows = (scores.recall, scores.precision, scores.recall, f1, scores.iou)
        for ours, theirs in zip(rows, arrays[f"{case}_class_{columns}"], strict=True):
            # Undefined values were recorded as 0.
            np.testing.assert_allclose(np.nan_to_num(ours), theirs, atol=1e-5)
        macro = [np.nanmean(row) for row in rows]
        np.testing.assert_allclose(macro, arrays[f"{case}_macro_{columns}"], atol=1e-5)
        np.testing.assert_allclose(macro[-1], scores.miou_macro)
        # From summed counts, each error is one false positive and one false negative.
        oa = scores.oa_micro
        np.testing.assert_allclose([oa, oa, oa, oa, oa / (2 - oa)], arrays[f"{case}_micro_{columns}"], atol=1e-5)


def test_average_precision(recorded):
    arrays = recorded("metrics.npz")
    scores, targets = arrays["ap_scores"], arrays["ap_targets"].astype(np.uint8)
    # A class without positives was recorded as 0.
    ap = 100 * np.nan_to_num(average_precision(scores, targets))
    np.testing.assert_allclose(ap, arrays["ap_per_class"], atol=1e-6)
    np.testing.assert_allclose(ap.mean(), arrays["map_macro"], atol=1e-6)
    pooled = average_precision(scores.reshape(-1, 1), targets.reshape(-1, 1))
    np.testing.assert_allclose(100 * pooled[0], arrays["map_micro"], atol=1e-6)


def test_learning_rates(recorded, recipe):
    arrays = recorded("lr_schedule.npz")
    cases = [name.removesuffix("_params") for name in arrays if name.endswith("_params")]
    assert cases
    for case in cases:
        epochs, warmup, base, minimum, start, per_epoch = arrays[f"{case}_params"]
        config = recipe.classifier.training.model_copy(
            update={
                "epochs": int(epochs),
                "warmup_epochs": warmup,
                "learning_rate": base,
                "minimum_rate": minimum,
                "start_rate": start,
            }
        )
        steps = int(per_epoch)
        function = arrays[f"{case}_lr_function_of_update"]
        ours = [published_rate(update, steps, config) for update in range(len(function))]
        np.testing.assert_allclose(ours, function, atol=1e-12)
        used = arrays[f"{case}_lr_in_use"]
        ours = [learning_rate(update, steps_per_epoch=steps, config=config) for update in range(len(used))]
        np.testing.assert_allclose(ours, used, atol=1e-12)
