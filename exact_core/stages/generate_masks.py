"""Stage `generate_masks`: a classifier's CAMs, a threshold chosen without masks -> pseudo masks and their quality."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from exact_core.artifacts.folders import code_version, fresh_folder
from exact_core.artifacts.model_folders import load_classifier
from exact_core.clues.fields import Fields
from exact_core.clues.maps import CamMaker
from exact_core.clues.masks import pseudo_masks, strongest_class
from exact_core.clues.overlaps import OverlapTags
from exact_core.clues.pixels import FirstMask, PixelModel, sure_pixels, without_unknown
from exact_core.clues.quality import Committee, Opinions, Shares, judge, shares_shown, tag_agreement
from exact_core.clues.relearn import relearn
from exact_core.clues.selection import (
    BINS,
    THRESHOLDS,
    BorderProfile,
    border_profile,
    border_threshold,
    cam_histogram,
    otsu_threshold,
    valley_threshold,
)
from exact_core.clues.sweep import sweep_confusions, sweep_figures
from exact_core.config import MasksConfig, RunConfig
from exact_core.data.season.segments import SEGMENTS
from exact_core.data.sources import dataset_title
from exact_core.data.windows.batches import BatchLoader
from exact_core.data.windows.dataset import VOID, FileEntry, WindowDataset
from exact_core.data.windows.mask_dataset import FieldsUsed, MaskManifest, MaskQuality, write_mask_shard
from exact_core.errors import DataError, TrainingError
from exact_core.models.precision import for_inference
from exact_core.stages.stage import Stage
from exact_core.tracking.runs import Tracker, metric_name
from exact_core.training.loop import choose_device
from exact_core.undefined import defined

__all__ = ["STAGE", "generate_masks"]

STAGE = Stage(name="generate_masks", size="train", minutes=480, settings=("masks",), writes={"masks": ("masks.json",)})

log = logging.getLogger(__name__)

SPLITS = ("train", "validation")
VALIDATION_RULE = "validation masks"
Arrays = dict[str, NDArray[np.generic]]


@dataclass(frozen=True)
class Refined:
    """What pixel self-training made of the masks.

    scores: of a window, (H, W, K + 1), whose maximum is the label of each pixel. kept: share of pixels that keep their
    label. None where it did not run. teachers, opinions: see `exact_core.clues.relearn.Relearned`.
    """

    scores: Callable[[int], NDArray[np.float64]]
    kept: float | None = None
    teachers: tuple[PixelModel, ...] = ()
    opinions: Opinions = field(default_factory=dict)


@dataclass
class Evidence:
    """What a threshold is chosen from, summed over batches: for the clue-based or for the fused CAMs."""

    classes: int
    profile: BorderProfile = field(default_factory=BorderProfile.empty)
    histogram: NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS, np.int64))
    confusions: NDArray[np.int64] | None = None

    def look(self, cams: torch.Tensor, contrast: torch.Tensor) -> None:
        """Take in a batch of CAMs and what the images say about borders."""
        self.profile += border_profile(cams, contrast)
        self.histogram += cam_histogram(cams)

    def compare(self, cams: torch.Tensor, truth: NDArray[np.uint8]) -> None:
        """Take in windows whose masks may be seen."""
        found = sweep_confusions(*strongest_class(cams.cpu()), truth, THRESHOLDS, self.classes)
        self.confusions = found if self.confusions is None else self.confusions + found

    def threshold(self, settings: MasksConfig) -> tuple[float, str]:
        """The threshold and the rule that chose it."""
        if self.confusions is not None:
            return float(THRESHOLDS[sweep_figures(self.confusions)[1].argmax()]), VALIDATION_RULE
        rule = settings.threshold
        if not isinstance(rule, str):
            return rule, "given"
        # Without any activation there is nothing to separate: all of it is background.
        if not self.histogram.any():
            return 1.0, rule
        if rule == "borders":
            return border_threshold(self.profile)[0], rule
        return {"otsu": otsu_threshold, "valley": valley_threshold}[rule](self.histogram), rule


def generate_masks(
    config: RunConfig, *, dataset: Path, classifier: Path, out: Path, tracker: Tracker
) -> dict[str, float]:
    """Write CAMs and pseudo masks for the training and validation windows, and an estimate of their quality.

    Dense labels are never read, except those of the validation split where `masks.validation_masks` asks for it.

    Args:
        config: `config.masks` applies.
        dataset: folder of the window dataset.
        classifier: model folder of the classifier.
        out: folder of the mask set.
        tracker: gets threshold, coverage and quality.

    Returns:
        The threshold, the share of pixels that became background, and what OA and mIoU to expect of the masks.

    Raises:
        DataError: validation masks are asked for and there are none.
        TrainingError: every CAM is zero, so that no threshold separates anything, or the masks' expected quality is
            below `masks.minimum_quality`. The masks are still written, for inspection.
    """
    fresh_folder(out, "masks.json")
    windows, settings = WindowDataset(dataset), config.masks
    _check_validation(windows, settings)
    manifest = windows.manifest
    tracker.log_dataset(dataset, name=dataset_title(manifest), digest=manifest.digest, source=manifest.source)
    maker, loader = _open_classifier(config, classifier, windows)
    evidence = {name: Evidence(windows.classes) for name in ("clue", "fused")}
    parts = _by_shard(windows)
    every = np.concatenate(parts).tolist()
    overlaps = OverlapTags(windows, every, use=settings.overlaps)
    fields = Fields(windows, every, overlaps) if settings.fields and manifest.has_fields else None
    shards = [_cams(maker, loader(indices), evidence, overlaps, fields) for indices in parts]
    chosen = evidence[settings.cam]
    _check_activation(chosen)
    threshold, rule = chosen.threshold(settings)
    _first_masks(shards, windows, cam=settings.cam, threshold=threshold)
    found = _shown(shards, windows, config.data.tag_share)
    refined = _relearn(shards, windows, config, overlaps, threshold=threshold)
    outlines, opinions = None, refined.opinions
    if fields is not None:
        outlines, opinions = _one_crop_a_field(shards, fields, config, refined)
    entries, counts = _write(shards, out, kind=settings.cam, classes=windows.classes)
    quality = judge(
        _committee(opinions, windows.classes),
        names=manifest.classes,
        tagged=list(manifest.tag_counts.values()),
        border_contrast=border_threshold(chosen.profile)[1],
        relearn_agreement=refined.kept,
        found=found,
        shown=_shown(shards, windows, config.data.tag_share),
    )
    config.save(out / "config.yaml")
    masks = _manifest(windows, evidence, settings, quality, threshold=(threshold, rule), entries=entries, counts=counts)
    masks.model_copy(update={"fields": outlines}).publish(out)
    summary = _told(masks, out, tracker)
    _gate(quality, settings, out)
    return summary


def _first_masks(shards: list[Arrays], windows: WindowDataset, *, cam: str, threshold: float) -> None:
    """Add the masks that CAMs and tags alone make, void where nothing is known."""
    for arrays in shards:
        first = pseudo_masks(torch.from_numpy(arrays[cam]).float(), threshold).numpy()
        named = zip(first, arrays["index"], strict=True)
        arrays["masks"] = np.stack([without_unknown(mask, windows, int(index)) for mask, index in named])


def _check_validation(windows: WindowDataset, settings: MasksConfig) -> None:
    """Raise DataError if validation masks are to choose the threshold and there are none."""
    if settings.validation_masks and not (windows.manifest.has_labels and len(windows.indices("validation"))):
        raise DataError(
            f"masks.validation_masks is set, but {windows.root} has no validation windows with dense labels. "
            f"Leave it off to choose from tags alone"
        )


def _check_activation(chosen: Evidence) -> None:
    """Raise TrainingError if every CAM is zero."""
    if not chosen.histogram.any():
        raise TrainingError(
            "every CAM of the classifier is zero: it does not separate the crops. "
            "Train longer (classifier.training.epochs) or check the tags"
        )


def _open_classifier(
    config: RunConfig, folder: Path, windows: WindowDataset
) -> tuple[CamMaker, Callable[[NDArray[np.int64]], BatchLoader]]:
    """What makes CAMs of batches, and what makes batches of positions in the dataset."""
    settings, device = config.masks, choose_device(config.device)
    model, manifest, trained = load_classifier(folder, windows)
    if settings.cam == "clue" and not model.prototypes.foreground_moves.any():
        raise TrainingError(
            f"{folder}: the prototypes of this classifier never moved, so there are no clues for CAMs. "
            f"Train longer or lower classifier.loss.contrast_start, or set masks.cam=fused"
        )
    maker = CamMaker(for_inference(model, device, config.precision), trained.classifier, settings)

    def loader(indices: NDArray[np.int64]) -> BatchLoader:
        return BatchLoader(
            windows,
            indices,
            batch=settings.batch,
            encoder=trained.classifier.encoder,
            device=device,
            statistics=manifest.statistics,
        )

    return maker, loader


def _manifest(
    windows: WindowDataset,
    evidence: dict[str, Evidence],
    settings: MasksConfig,
    quality: MaskQuality,
    *,
    threshold: tuple[float, str],
    entries: list[FileEntry],
    counts: NDArray[np.int64],
) -> MaskManifest:
    """Content of masks.json. threshold: with its rule. counts: pixels (K + 1,) by label."""
    classes = windows.manifest.classes
    return MaskManifest(
        dataset_digest=windows.manifest.digest,
        classes=classes,
        cam=settings.cam,
        threshold=threshold[0],
        rule=threshold[1],
        fused_threshold=evidence["fused"].threshold(settings)[0],
        splits=SPLITS,
        windows=sum(entry.windows for entry in entries),
        coverage=dict(zip(("background", *classes), (counts / counts.sum()).tolist(), strict=True)),
        histogram=tuple(evidence[settings.cam].histogram.tolist()),
        quality=quality,
        code_version=code_version(),
        shards=tuple(entries),
    )


def _told(masks: MaskManifest, out: Path, tracker: Tracker) -> dict[str, float]:
    """Log and track the masks. The main metrics of a run."""
    quality = masks.quality
    if quality.lost:
        log.warning("masks: %s hardly ever shown where tagged, so no map will show it", ", ".join(quality.lost))
    if quality.rare:
        log.info("masks: %s tagged in few windows, so little can be said of them", ", ".join(quality.rare))
    log.info(
        "masks: %d windows, threshold %.2f (%s), background %.0f %%, %s",
        masks.windows,
        masks.threshold,
        masks.rule,
        100 * masks.coverage["background"],
        _expected(quality),
    )
    tracker.log_file(out / "masks.json")
    summary = {
        "threshold": masks.threshold,
        "background_share": masks.coverage["background"],
        "expected_oa": quality.expected_oa,
        "expected_miou": quality.expected_miou,
    }
    known = defined(summary)
    coverage = {f"coverage.{metric_name(name)}": share for name, share in masks.coverage.items()}
    tracker.log_summary({**known, "tag_agreement": quality.tag_agreement, **coverage})
    return known


def _expected(quality: MaskQuality) -> str:
    """What is expected of the masks, in words."""
    if quality.expected_miou is None:
        return "expected mIoU unknown (masks.relearn.tags or masks.relearn.rounds is off)"
    return (
        f"expected OA {quality.expected_oa:.2f}, mIoU {quality.expected_miou:.2f} ({quality.expected_low:.2f} to "
        f"{quality.expected_high:.2f})"
    )


def _gate(quality: MaskQuality, settings: MasksConfig, out: Path) -> None:
    """Fail the run where the masks are not worth a segmenter. What is unknown passes no gate but an open one."""
    if settings.minimum_quality > (quality.expected_miou or 0.0):
        missed = "which does not pass" if quality.expected_miou is None else "below"
        raise TrainingError(
            f"masks: {_expected(quality)}, {missed} "
            f"masks.minimum_quality {settings.minimum_quality:g} (tag agreement {quality.tag_agreement:.2f}; "
            f"lost crops: {', '.join(quality.lost) or 'none'}; crops tagged in few windows: "
            f"{', '.join(quality.rare) or 'none'}). The masks are in {out}. Train the classifier longer, check the "
            f"tags, or lower the minimum"
        )


def _by_shard(windows: WindowDataset) -> list[NDArray[np.int64]]:
    """Positions of the windows that get masks, those of one shard of the dataset together."""
    chosen = np.concatenate([windows.indices(split) for split in SPLITS])
    starts = np.cumsum([0, *(shard.windows for shard in windows.manifest.shards)])
    parts = [chosen[(chosen >= first) & (chosen < last)] for first, last in pairwise(starts)]
    return [part for part in parts if len(part)]


def _cams(
    maker: CamMaker,
    loader: BatchLoader,
    evidence: dict[str, Evidence],
    overlaps: OverlapTags,
    fields: Fields | None,
) -> Arrays:
    """CAMs float16 (n, K, H, W) of the loader's windows, clue-based and fused.

    `evidence` takes in what they show, and `fields` what the images show of outlines.

    Those that masks are made of are 0 where another window rules the crop out. Those to compare with are left alone.
    """
    windows = loader.dataset
    found: dict[str, list[NDArray[np.generic]]] = {name: [] for name in evidence}
    for batch in loader:
        cams = maker(batch.series, batch.tags)
        shown = []
        if maker.settings.validation_masks:
            shown = [row for row, index in enumerate(batch.index) if windows.records[index].split == "validation"]
        if fields is not None:
            for index, contrast in zip(batch.index, cams.contrast.cpu().numpy(), strict=True):
                fields.look(int(index), contrast)
        for name, told in evidence.items():
            # In the precision in which they are kept, so that a mask made again from the file is the same.
            values = getattr(cams, name).half()
            if name == maker.settings.cam:
                values = _within(values, [overlaps.allowed(int(index)) for index in batch.index])
            found[name].append(values.cpu().numpy())
            told.look(values.float(), cams.contrast)
            if shown:
                truth = np.stack([windows.labels(int(batch.index[row])) for row in shown])
                told.compare(values[shown].float(), truth)
    return {"index": loader.indices, **{name: np.concatenate(parts) for name, parts in found.items()}}


def _within(cams_BKHW: torch.Tensor, allowed: list[NDArray[np.float64]]) -> torch.Tensor:
    """CAMs where a pixel may be of the class, else 0. The same ones where each window stands alone."""
    if all(each.shape[-1] == 1 for each in allowed):
        return cams_BKHW
    side = cams_BKHW.shape[-2:]
    kept = np.stack([np.broadcast_to(each[1:], (len(each) - 1, *side)) for each in allowed])
    return cams_BKHW * torch.from_numpy(kept).to(cams_BKHW)


def _relearn(
    shards: list[Arrays],
    windows: WindowDataset,
    config: RunConfig,
    overlaps: OverlapTags,
    *,
    threshold: float,
) -> Refined:
    """Refine all masks by pixel self-training."""
    settings = config.masks
    if not settings.relearn.rounds:
        return Refined(_cam_scores(shards, settings.cam, threshold))
    teaching = set(windows.indices("train").tolist())

    def first_masks() -> Iterator[FirstMask]:
        for arrays in shards:
            for index, mask, cams in zip(arrays["index"].tolist(), arrays["masks"], arrays[settings.cam], strict=True):
                if index in teaching:
                    yield FirstMask(index, mask, sure_pixels(cams.max(0), threshold, settings.relearn.margin))

    relearned = relearn(
        windows,
        first_masks(),
        settings.relearn,
        overlaps=overlaps,
        tag_share=config.data.tag_share,
        seed=config.seed,
    )
    kept, pixels = 0, 0
    for arrays in shards:
        masks = np.stack([relearned.model.mask(int(index)) for index in arrays["index"]])
        known = masks != VOID
        kept, pixels = kept + int((masks == arrays["masks"])[known].sum()), pixels + int(known.sum())
        arrays["masks"] = masks
    return Refined(relearned.model.scores, kept / pixels, relearned.teachers, relearned.opinions)


def _cam_scores(shards: list[Arrays], kind: str, threshold: float) -> Callable[[int], NDArray[np.float64]]:
    """A window's CAMs as scores (H, W, K + 1): background is the constant plane of the threshold."""
    places = {int(index): (arrays[kind], row) for arrays in shards for row, index in enumerate(arrays["index"])}

    def scores(index: int) -> NDArray[np.float64]:
        cams, row = places[index]
        plane = np.full(cams.shape[2:], threshold)
        return np.stack([plane, *cams[row].astype(np.float64)], -1)

    return scores


def _one_crop_a_field(
    shards: list[Arrays], fields: Fields, config: RunConfig, refined: Refined
) -> tuple[FieldsUsed, Opinions]:
    """Give each field of the masks one crop. What became of the outlines, and the teachers' masks with fields."""
    settings = config.masks
    # What is found in the images is a part of a field, or several in one. None of them has to show a tag.
    tag_share = 1.0 if config.data.season.outlines == SEGMENTS else config.data.tag_share

    def masked(index: int, mask: NDArray[np.uint8], crops: NDArray[np.int64]) -> NDArray[np.uint8]:
        outside = None
        if settings.outside != "pixels":
            outside = fields.beside(index) if settings.outside == "borders" else np.ones(mask.shape, bool)
        return fields.mask(index, mask, crops, outside=outside)

    crops, _ = fields.crops(refined.scores, tag_share=tag_share)
    for arrays in shards:
        named = zip(arrays["index"].tolist(), arrays["masks"].astype(np.uint8), strict=True)
        arrays["masks"] = np.stack([masked(index, mask, crops) for index, mask in named])
    by_teachers = [fields.crops(each.scores, tag_share=tag_share)[0] for each in refined.teachers]
    opinions = {
        index: [masked(index, mask, found) for mask, found in zip(masks, by_teachers, strict=True)]
        for index, masks in refined.opinions.items()
    }
    used = FieldsUsed(
        fields=fields.count,
        not_shown=int((~fields.shown()).sum()),
        contradicted=int((crops < 0).sum() - (~fields.shown()).sum()),
        outside=settings.outside,
    )
    log.info(
        "masks: one crop each for %d of %d fields; the images do not show the outlines of %d, tags leave no crop to %d",
        int((crops >= 0).sum()),
        used.fields,
        used.not_shown,
        used.contradicted,
    )
    return used, opinions


def _committee(opinions: Opinions, classes: int) -> Committee | None:
    """How far the teachers agree on the training windows. None without them."""
    committee = Committee(classes)
    for masks in opinions.values():
        committee.look(masks)
    return committee if opinions else None


def _shown(shards: list[Arrays], windows: WindowDataset, tag_share: float) -> Shares:
    """For each crop, the share of its training windows whose finished mask shows it."""
    found, tags = [], []
    for arrays in shards:
        own = np.isin(arrays["index"], windows.indices("train"))
        tags.append(windows.tags[arrays["index"][own]])
        found.append(tag_agreement(arrays["masks"][own].astype(np.uint8), tags[-1], share=tag_share))
    return shares_shown(np.concatenate(found), np.concatenate(tags))


def _write(shards: list[Arrays], out: Path, *, kind: str, classes: int) -> tuple[list[FileEntry], NDArray[np.int64]]:
    """Write masks and CAMs. The files' entries, and pixels (K + 1,) by label."""
    counts = np.zeros(classes + 1, np.int64)
    entries: list[FileEntry] = []
    for number, arrays in enumerate(shards):
        counts += np.bincount(arrays["masks"].reshape(-1), minlength=VOID + 1)[: len(counts)]
        kept = {name: arrays[name] for name in ("index", "masks", "fused")}
        entries.append(write_mask_shard(out, number, {**kept, "cams": arrays[kind]}))
    return entries, counts
