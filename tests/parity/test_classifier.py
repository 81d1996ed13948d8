"""The whole classifier, as the recipe `pastis24` configures it: forward, losses, gradients, training, CAMs."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from exact_core.clues.affinity import refine, time_weights, weighted_embedding
from exact_core.clues.cams import by_maximum, clue_cams, fused_cam, prototype_similarity, tagged_embedding
from exact_core.data.windows.batches import Batch, Series
from exact_core.models.published import published_name
from exact_core.training.classifier import classifier_losses


def close(ours, theirs, *, a=0.0, r=0.0):
    torch.testing.assert_close(
        ours.detach().double(), torch.as_tensor(np.asarray(theirs), dtype=torch.float64), atol=a, rtol=r
    )


@pytest.fixture
def batch(recorded, series):
    tags = torch.from_numpy(recorded("cls_eval.npz")["cls_labels"]).float()
    return Batch(series=series, tags=tags, target=None, index=np.arange(len(tags)))


def test_forward(recorded, classifier, series):
    model, _ = classifier
    arrays = recorded("cls_eval.npz")
    output = model.eval()(series)
    close(output.logits, arrays["cls_logits"], a=1e-5, r=1e-4)
    close(output.spatial_logits, arrays["spatial_patch_logits"], a=1e-5, r=1e-4)
    close(output.temporal_logits, arrays["temporal_patch_logits"], a=1e-5, r=1e-4)
    close(output.spatial_map, arrays["spatial_patch_map"], a=1e-5, r=1e-4)
    close(output.temporal_map, arrays["temporal_patch_map"], a=1e-5, r=1e-4)
    close(output.attention, arrays["class_to_time_attention"], a=1e-6)
    probes = arrays["probe_patch_index"]
    close(output.class_tokens[:, :, probes].transpose(1, 2), arrays["probe_class_tokens"], a=1e-4, r=1e-4)
    close(output.date_tokens[:, probes], arrays["probe_date_tokens"], a=1e-4, r=1e-4)
    spatial = model.spatial(output.class_tokens)
    close(spatial[:, :, [0, 1, spatial.shape[2] - 1]], arrays["probe_spatial_tokens"], a=1e-4, r=1e-4)


def test_clues_and_losses_before_the_prototypes_start(recorded, classifier, batch):
    model, config = classifier
    arrays = recorded("cls_train_pre.npz")
    output = model.train()(batch.series)
    close(fused_cam(output.spatial_map, output.temporal_map), arrays["fusion_cam"], a=1e-5, r=1e-4)
    weights = time_weights(output.attention, None, rule=config.affinity.time_weights)
    close(weights, arrays["time_weights"], a=1e-6)
    probes = recorded("cls_eval.npz")["probe_patch_index"]
    embedding = weighted_embedding(output.date_tokens, weights, None)
    close(embedding[:, :, probes].transpose(1, 2), arrays["probe_weighted_embedding"], a=1e-4)
    losses, clues = classifier_losses(output, batch, model, config, contrast=False)
    assert clues is None
    close(losses.tags, arrays["loss_cls"], r=1e-5)
    close(losses.auxiliary, arrays["loss_aux_cls"], r=1e-5)
    close(losses.affinity, arrays["loss_tap"], r=1e-5)
    close(losses.total, arrays["loss_total"], r=1e-5)


def test_refined_cams(recorded, classifier, batch):
    model, config = classifier
    arrays = recorded("cls_train_pre.npz")
    output = model(batch.series)
    every = torch.ones_like(batch.tags)
    cams = fused_cam(output.spatial_map, output.temporal_map)
    refined = refine(cams.flatten(0, 1), tagged_embedding(output, every, None, config.affinity), config.affinity)
    valid = arrays["fusion_cam_refine_valid"].astype(bool)
    close(refined.view_as(cams)[valid], arrays["fusion_cam_refine"][valid], a=1e-5, r=1e-4)


def test_gradients(recorded, classifier, batch):
    model, config = classifier
    losses, _ = classifier_losses(model.train()(batch.series), batch, model, config, contrast=False)
    losses.total.backward()
    expected = recorded("cls_train_pre_grads.safetensors")
    checked = 0
    for name, parameter in model.named_parameters():
        theirs = expected[published_name(name)]
        ours = parameter.grad
        if "table" in name:
            ours = ours.t()[:, : theirs.shape[1]]
        ours = ours.reshape(theirs.shape)
        assert (ours - theirs).norm() <= 1e-3 * theirs.norm().clamp(min=1e-7), name
        checked += 1
    assert checked == len(expected)


def test_training_trajectory(recorded, classifier, batch):
    model, config = classifier
    rate, decay = config.training.learning_rate, config.training.weight_decay
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.999), eps=1e-8, weight_decay=decay)
    rows = []
    for _ in recorded("cls_train_pre.npz")["trajectory"]:
        losses, _ = classifier_losses(model.train()(batch.series), batch, model, config, contrast=False)
        assert losses.contrast is None
        rows.append([losses.tags.item(), losses.auxiliary.item(), 0.0, losses.affinity.item(), losses.total.item()])
        optimizer.zero_grad()
        losses.total.backward()
        optimizer.step()
    np.testing.assert_allclose(rows, recorded("cls_train_pre.npz")["trajectory"], rtol=1e-3)


def test_step_with_prototypes(recorded, classifier, batch):
    model, config = classifier
    arrays = recorded("cls_train_post.npz")
    output = model.train()(batch.series)
    close(by_maximum(fused_cam(output.spatial_map, output.temporal_map)), arrays["cams_normalised"], a=1e-5)
    losses, clues = classifier_losses(output, batch, model, config, contrast=True)
    np.testing.assert_array_equal(clues.foreground.pixels, arrays["foreground_pixels"])
    np.testing.assert_array_equal(clues.background.pixels, arrays["background_pixels"])
    close(clues.foreground.loss, arrays["fg_entropy"], r=1e-5)
    close(clues.background.loss, arrays["bg_entropy"], r=1e-5)
    for ours, name in (
        (losses.tags, "loss_cls"),
        (losses.auxiliary, "loss_aux_cls"),
        (losses.contrast, "loss_cbl"),
        (losses.affinity, "loss_tap"),
        (losses.total, "loss_total"),
    ):
        close(ours, arrays[name], r=1e-5)
    losses.total.backward()
    norms = dict(zip(arrays["grad_norm_names"].tolist(), arrays["grad_norms"], strict=True))
    for name, parameter in model.named_parameters():
        np.testing.assert_allclose(parameter.grad.norm().item(), norms[published_name(name)], rtol=1e-3, atol=1e-7)
    clues.move(model.prototypes)
    close(model.prototypes.foreground, arrays["fg_after"], a=1e-6)
    close(model.prototypes.background, arrays["bg_after"], a=1e-6)


def test_cam_generation(recorded, recipe, classifier, batch):
    model, config = classifier
    arrays = recorded("cam_generation.npz")
    tags = torch.from_numpy(arrays["cls_labels"]).float()
    tagged = tags.bool()
    output = model.eval()(batch.series)
    raw = prototype_similarity(output.class_tokens, model.prototypes).view_as(output.spatial_map)
    close(raw * tagged[:, :, None, None], arrays["cam_before_propagation"], a=1e-5)
    refined = torch.zeros_like(raw)
    refined[tagged] = refine(raw[tagged], tagged_embedding(output, tags, None, config.affinity), config.affinity)
    close(refined, arrays["cam_after_propagation"], a=1e-5)
    cams = clue_cams(output, tags, None, model.prototypes, config.affinity, stretch=recipe.masks.stretch)
    close(cams, arrays["cam_normalised"], a=1e-4)


def test_padding_counted_instead_of_written_out(recorded, classifier, batch):
    """The recorded losses and gradients, from series without their padding rows."""
    model, config = classifier
    arrays = recorded("cls_train_pre.npz")
    full = batch.series
    real = full.pixels.flatten(2).any(-1)
    longest = int(real.sum(1).max())
    assert real[:, :longest].sum() == real.sum() < real.numel()
    padding = real.shape[1] - real.sum(1)
    series = Series(full.pixels[:, :longest], full.dates[:, :longest], real[:, None, :longest], padding)
    losses, _ = classifier_losses(model.train()(series), replace(batch, series=series), model, config, contrast=False)
    close(losses.affinity, arrays["loss_tap"], r=1e-5)
    close(losses.total, arrays["loss_total"], r=1e-5)
    losses.total.backward()
    expected = recorded("cls_train_pre_grads.safetensors")
    for name, parameter in model.named_parameters():
        theirs = expected[published_name(name)]
        ours = parameter.grad.t()[:, : theirs.shape[1]] if "table" in name else parameter.grad
        assert (ours.reshape(theirs.shape) - theirs).norm() <= 1e-3 * theirs.norm().clamp(min=1e-7), name
