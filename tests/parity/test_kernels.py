import numpy as np
import pytest
import torch

from exact_core.clues.affinity import neighbour_affinity, propagate
from exact_core.clues.masks import enlarge, pseudo_masks
from exact_core.clues.prototypes import prototype_clues, sinkhorn
from exact_core.clues.sweep import strongest_class, sweep_confusions
from exact_core.config import AffinityConfig, PrototypeConfig, TrainingConfig
from exact_core.data.dataset import VOID
from exact_core.data.windows import origins, tags_from_labels
from exact_core.losses import segmentation_loss
from exact_core.metrics import Scores, average_precision, confusion_matrix
from exact_core.models.classifier import Prototypes
from exact_core.training.schedule import learning_rate, published_rate
from tests.parity.conftest import published_name
from tests.parity.test_classifier import close


def test_sinkhorn(recorded):
    arrays = recorded("sinkhorn.npz")
    names = [name.removesuffix("_similarity") for name in arrays if name.endswith("_similarity")]
    for name in names:
        matrix = sinkhorn(torch.from_numpy(arrays[f"{name}_similarity"]))
        close(matrix, arrays[f"{name}_matrix"], a=1e-5)
        np.testing.assert_array_equal(matrix.argmax(-1), arrays[f"{name}_argmax"])
    assert names


def test_prototype_steps(recorded):
    arrays = recorded("prototypes.npz")
    config = PrototypeConfig(momentum_warmup=False, present_only=False, weights="published")
    tags = torch.from_numpy(arrays["cls_labels"])
    prototypes = Prototypes(*arrays["fg_before"].shape)
    prototypes.foreground.copy_(torch.from_numpy(arrays["fg_before"]))
    prototypes.background.copy_(torch.from_numpy(arrays["bg_before"]))
    for step in range(3):
        features = torch.from_numpy(arrays[f"step{step}_features"]).requires_grad_()
        tokens = features.flatten(3).transpose(2, 3)
        cams = torch.from_numpy(arrays[f"step{step}_cams"]).flatten(2)
        clues = prototype_clues(tokens, cams, tags, prototypes, config)
        for side, name in ((clues.foreground, "fg"), (clues.background, "bg")):
            close(side.loss_per_class, arrays[f"step{step}_{name}_entropy_per_class"], a=1e-6, r=1e-5)
            close(side.loss, arrays[f"step{step}_{name}_entropy"], r=1e-5)
            if step == 0:
                ours = side.assignment.view(-1, len(tags), *features.shape[-2:]).transpose(0, 1)
                np.testing.assert_array_equal(ours, arrays[f"step0_{name}_assignment"])
        loss = 0.01 * clues.loss
        close(loss, arrays[f"step{step}_loss_cbl"], r=1e-5)
        loss.backward()
        norms = features.grad.transpose(0, 1).flatten(1).norm(dim=1)
        close(norms, arrays[f"step{step}_grad_features_of_loss_cbl_norm_per_class"], a=1e-9, r=1e-4)
        clues.move(prototypes)
        close(prototypes.foreground, arrays[f"step{step}_fg_after"], a=1e-6)
        close(prototypes.background, arrays[f"step{step}_bg_after"], a=1e-6)


@pytest.mark.parametrize(("case", "iterations"), [("square", 3), ("rect", 3), ("one_iteration", 1)])
def test_affinity(recorded, case, iterations):
    arrays = recorded("affinity_propagation.npz")
    config = AffinityConfig(iterations=iterations)
    affinity = neighbour_affinity(torch.from_numpy(arrays[f"{case}_embedding"]), config)
    close(affinity, arrays[f"{case}_affinity"][:, 0], a=1e-5)
    cams = propagate(torch.from_numpy(arrays[f"{case}_cam"])[:, 0], affinity, config)
    close(cams, arrays[f"{case}_output"][:, 0], a=1e-5)


def test_masks_and_thresholds(recorded):
    arrays = recorded("pseudo_labels.npz")
    truth = arrays["ground_truth"].copy()
    truth[truth == arrays["void_value"]] = VOID
    classes, side = arrays["cls_labels"].shape[1], truth.shape[-1]
    firm = ~arrays["fragile_pixels"]
    best = (-1.0, 0, 0.0)
    for number, step in enumerate(arrays["checkpoint_steps"]):
        cams = enlarge(torch.from_numpy(arrays["cams"][number]), side, align_corners=True)
        if number == 0:
            close(cams[0], arrays["upsampled_first_sample"][1:], a=1e-6)
        matrices = sweep_confusions(*strongest_class(cams), truth, arrays["thresholds"], classes)
        for column, threshold in enumerate(arrays["thresholds"]):
            masks = pseudo_masks(cams, float(threshold)).numpy()
            matrix = confusion_matrix(truth, masks, classes=classes)
            np.testing.assert_array_equal(matrices[column], matrix)
            oa = 100 * Scores(matrix).oa_micro
            # The published mean counts an absent class as 0.
            miou = 100 * np.nan_to_num(Scores(matrix).iou).mean()
            assert abs(oa - arrays["oa"][number, column]) < 0.05
            assert abs(miou - arrays["miou"][number, column]) < 0.05
            if oa > best[0]:
                best = (oa, int(step), float(threshold))
                chosen, chosen_firm = masks, firm[number]
            if step == 4000 and abs(threshold - 0.3) < 1e-9:
                expected = arrays["pseudo_labels_step4000_threshold030"]
                np.testing.assert_array_equal(masks[firm[number]], expected[firm[number]])
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
    loss.backward()
    norms = dict(zip(arrays["grad_norm_names"].tolist(), arrays["grad_norms"], strict=True))
    for name, parameter in segmenter.named_parameters():
        expected = norms[published_name(name)]
        np.testing.assert_allclose(parameter.grad.norm().item(), expected, rtol=1e-3, atol=1e-5)


def test_windows_and_tags(recorded):
    arrays = recorded("data.npz")
    side = arrays["window_index_map"].shape[-1]
    corners = origins(*arrays["target_patch"].shape[1:], window=side, stride=side)
    np.testing.assert_array_equal(corners, arrays["window_origin"])
    patch = arrays["target_patch"][0]
    ours = np.stack([patch[row : row + side, col : col + side] for row, col in corners])
    np.testing.assert_array_equal(ours, arrays["target_windows"])
    classes = arrays["class_labels"].shape[1]
    for labels, tags in zip(arrays["label_windows"], arrays["class_labels"], strict=True):
        labels = np.where(labels == classes + 1, VOID, labels).astype(np.uint8)
        np.testing.assert_array_equal(tags_from_labels(labels, classes=classes, share=0.01), tags)


def test_normalisation(recorded):
    arrays = recorded("data.npz")
    for case in ("short", "exact", "long"):
        pixels, transformed = arrays[f"{case}_series"], arrays[f"{case}_transformed_pixel"]
        ours = (pixels.astype(np.float32) - arrays["norm_mean"]) / arrays["norm_std"]
        shared = min(len(ours), len(transformed))
        np.testing.assert_allclose(ours[:shared], transformed[:shared, :-1], atol=1e-5)
        assert not transformed[shared:].any()


def test_metrics(recorded):
    arrays = recorded("metrics.npz")
    for case in ("all_classes", "missing_classes", "only_background"):
        classes = len(arrays[f"{case}_confusion"]) - 1
        matrix = confusion_matrix(arrays[f"{case}_labels"], arrays[f"{case}_predicted"], classes=classes)
        np.testing.assert_array_equal(matrix, arrays[f"{case}_confusion"])
        scores = Scores(matrix)
        table = next(value for name, value in arrays.items() if name.startswith(f"{case}_class_"))
        rows = (scores.recall, scores.precision, scores.recall, scores.f1, scores.iou)
        for ours, theirs in zip(rows, table, strict=True):
            # Undefined values were recorded as 0.
            np.testing.assert_allclose(np.nan_to_num(ours), theirs, atol=1e-5)
    ap = average_precision(arrays["ap_scores"], arrays["ap_targets"].astype(np.uint8))
    np.testing.assert_allclose(100 * np.nan_to_num(ap), arrays["ap_per_class"], atol=1e-4)
    pooled = average_precision(arrays["ap_scores"].reshape(-1, 1), arrays["ap_targets"].astype(np.uint8).reshape(-1, 1))
    np.testing.assert_allclose(100 * pooled[0], arrays["map_micro"], atol=1e-4)


def test_learning_rates(recorded):
    arrays = recorded("lr_schedule.npz")
    for case in (name.removesuffix("_params") for name in arrays if name.endswith("_params")):
        epochs, warmup, base, minimum, start, per_epoch = arrays[f"{case}_params"]
        config = TrainingConfig(
            epochs=int(epochs),
            warmup_epochs=warmup,
            learning_rate=base,
            minimum_rate=minimum,
            start_rate=start,
            schedule="published",
        )
        steps = int(per_epoch)
        function = [published_rate(update, steps, config) for update in range(200)]
        np.testing.assert_allclose(function, arrays[f"{case}_lr_function_of_update"], atol=1e-12)
        used = [learning_rate(update, steps_per_epoch=steps, config=config) for update in range(200)]
        np.testing.assert_allclose(used, arrays[f"{case}_lr_in_use"], atol=1e-12)
