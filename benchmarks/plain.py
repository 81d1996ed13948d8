"""The method's equations written plainly: the other side of every ratio in `benchmarks.speed`.

Full attention maps of every layer are kept, every series is padded to a fixed number of rows which are all computed,
classes are looped over for prototypes, affinity and CAMs, and a threshold sweep takes a pass a threshold. Parameters
carry the names of `exact_core.models`, so that a state dict of ours loads and both sides can be compared number by
number. Written from docs/method.md; nothing of exact_core's models or clues is called.

`map_windows` is another kind of plain, for `benchmarks.peers`: today's models, asked about every window as a whole.
Axes: B windows, T dates, P patches, K classes, D embedding, L tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from unittest.mock import patch

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from exact_core.config import ClassifierConfig, EncoderConfig, SegmenterConfig
from exact_core.data.windows.batches import Series
from exact_core.data.windows.dataset import VOID
from exact_core.data.windows.dates import MIN_DATES
from exact_core.mapping.rows import window_starts, window_weights
from exact_core.metrics import confusion_matrix
from exact_core.models.classifier import Prototypes
from exact_core.models.probabilities import class_probabilities
from exact_core.models.tsvit import DayTable, FourierDates, to_patches

NEIGHBOURS = [(row, col) for row in (-1, 0, 1) for col in (-1, 0, 1) if (row, col) != (0, 0)]


def pad_series(series: Series, total: int) -> tuple[Series, Tensor]:
    """The series padded with rows of zeros and day 0 to `total` dates, and which rows are real (B, total)."""
    windows, dates = series.dates.shape
    missing = total - dates
    real = torch.ones(windows, dates, dtype=torch.bool) if series.seen is None else series.seen[:, 0]
    pixels = F.pad(series.pixels * real[:, :, None, None, None], (0, 0, 0, 0, 0, 0, 0, missing))
    return Series(pixels, F.pad(series.dates * real, (0, missing)), None), F.pad(real, (0, missing))


class Attention(nn.Module):
    """Attention by its definition; returns the whole map too."""

    def __init__(self, dim: int, heads: int, width: int) -> None:
        super().__init__()
        self.heads, self.width = heads, width
        self.qkv = nn.Linear(dim, 3 * heads * width, bias=False)
        self.out = nn.Linear(heads * width, dim)

    def forward(self, x: Tensor, keys: Tensor | None) -> tuple[Tensor, Tensor]:
        """Values (N, L, D) and probabilities (N, heads, L, L)."""
        count, length, _ = x.shape
        q, k, v = (
            part.view(count, length, self.heads, self.width).transpose(1, 2) for part in self.qkv(x).chunk(3, -1)
        )
        scores = torch.matmul(q, k.transpose(-1, -2)) * self.width**-0.5
        if keys is not None:
            scores = scores.masked_fill(~keys[:, None, None, :], -torch.inf)
        probabilities = torch.softmax(scores, -1)
        merged = torch.matmul(probabilities, v).transpose(1, 2).reshape(count, length, -1)
        return self.out(merged), probabilities


class Block(nn.Module):
    """Attention and MLP with their norms."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        dim = config.dim
        self.residual = config.residual
        self.attention_norm, self.mlp_norm = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention = Attention(dim, config.heads, config.head_dim)
        self.mlp = nn.Sequential(
            nn.Linear(dim, config.mlp_ratio * dim),
            nn.GELU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.mlp_ratio * dim, dim),
            nn.Dropout(config.dropout),
        )

    def forward(self, x: Tensor, keys: Tensor | None) -> tuple[Tensor, Tensor]:
        """As `Attention.forward`."""
        normed = self.attention_norm(x)
        attended, probabilities = self.attention(normed, keys)
        x = attended + {"pre_norm": x, "normed": normed, "double": x + normed}[self.residual]
        return x + self.mlp(self.mlp_norm(x)), probabilities


class Transformer(nn.Module):
    """Blocks, keeping the map of each."""

    def __init__(self, config: EncoderConfig, depth: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(config) for _ in range(depth))
        self.norm = nn.LayerNorm(config.dim)

    def forward(self, x: Tensor, keys: Tensor | None = None) -> tuple[Tensor, list[Tensor]]:
        """Tokens, and one attention map a block."""
        maps = []
        for block in self.blocks:
            x, probabilities = block(x, keys)
            maps.append(probabilities)
        return self.norm(x), maps


class Temporal(nn.Module):
    """Class and date tokens of every patch through time."""

    def __init__(self, config: EncoderConfig, bands: int, tokens: int) -> None:
        super().__init__()
        self.patch, self.tokens = config.patch, tokens
        self.patch_embedding = nn.Linear(config.patch**2 * bands, config.dim)
        self.date_embedding = (FourierDates if config.dates == "season_day" else DayTable)(config.dim)
        self.class_tokens = nn.Parameter(torch.empty(tokens, config.dim))
        self.transformer = Transformer(config, config.temporal_depth)

    def forward(self, series: Series, keys: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Class tokens (B, P, K, D), date tokens (B, P, T, D), attention of classes to dates (B, K, T)."""
        patches = to_patches(series.pixels, self.patch)
        batch, count, dates, _ = patches.shape
        x = self.patch_embedding(patches) + self.date_embedding(series.dates)[:, None]
        x = torch.cat([self.class_tokens.expand(batch * count, -1, -1), x.view(batch * count, dates, -1)], 1)
        if keys is not None:
            keys = keys[:, None].expand(-1, count, -1).reshape(batch * count, dates)
            keys = torch.cat([torch.ones(len(keys), self.tokens, dtype=torch.bool), keys], 1)
        x, maps = self.transformer(x, keys)
        x = x.view(batch, count, self.tokens + dates, -1)
        total = sum(m.detach().mean(1)[:, : self.tokens, self.tokens :] for m in maps) / len(maps)
        attention = total.view(batch, count, self.tokens, dates).mean(1)
        return x[:, :, : self.tokens], x[:, :, self.tokens :], attention


class Spatial(nn.Module):
    """Patch tokens of every class through space."""

    def __init__(self, config: EncoderConfig, patches: int, *, global_token: bool) -> None:
        super().__init__()
        self.global_token = nn.Parameter(torch.empty(config.dim)) if global_token else None
        self.position = nn.Parameter(torch.empty(patches, config.dim))
        self.transformer = Transformer(config, config.spatial_depth)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, K, P, D) -> the same, or with the global token first."""
        batch, classes, patches, dim = tokens.shape
        x = (tokens + self.position).reshape(batch * classes, patches, dim)
        if self.global_token is not None:
            x = torch.cat([self.global_token.expand(len(x), 1, -1), x], 1)
        return self.transformer(x)[0].view(batch, classes, -1, dim)


@dataclass
class Output:
    """As `ClassifierOutput`."""

    logits: Tensor
    spatial_map: Tensor
    temporal_map: Tensor
    class_tokens: Tensor
    date_tokens: Tensor
    attention: Tensor


class PlainClassifier(nn.Module):
    """The tag classifier."""

    def __init__(self, config: ClassifierConfig, *, bands: int, classes: int, window: int) -> None:
        super().__init__()
        encoder = config.encoder
        self.side = window // encoder.patch
        self.temporal = Temporal(encoder, bands, classes)
        self.spatial = Spatial(encoder, self.side**2, global_token=True)
        self.head = nn.Sequential(nn.LayerNorm(encoder.dim), nn.Linear(encoder.dim, 1))
        self.patch_head = nn.Conv2d(encoder.dim, 1, 3, padding=1)
        self.prototypes = Prototypes(classes, config.prototypes.per_class, encoder.dim)

    def forward(self, series: Series, keys: Tensor | None) -> Output:
        """All that losses and clues use; `keys` (B, T) are the dates that may be attended to, None: all."""
        tokens, dates, attention = self.temporal(series, keys)
        temporal = tokens.transpose(1, 2)
        spatial = self.spatial(temporal)
        maps = []
        for features in (temporal, spatial[:, :, 1:]):
            batch, classes, _, dim = features.shape
            image = features.transpose(2, 3).reshape(batch * classes, dim, self.side, self.side)
            maps.append(self.patch_head(image).view(batch, classes, self.side, self.side))
        return Output(self.head(spatial[:, :, 0]).squeeze(-1), maps[1], maps[0], temporal, dates, attention)


class PlainSegmenter(nn.Module):
    """The segmenter."""

    def __init__(self, config: SegmenterConfig, *, bands: int, classes: int, window: int) -> None:
        super().__init__()
        encoder = config.encoder
        self.patch, self.side, self.layout = encoder.patch, window // encoder.patch, config.layout
        self.temporal = Temporal(encoder, bands, classes + 1)
        self.spatial = Spatial(encoder, self.side**2, global_token=False)
        self.head = nn.Sequential(nn.LayerNorm(encoder.dim), nn.Linear(encoder.dim, encoder.patch**2))

    def forward(self, series: Series, keys: Tensor | None) -> Tensor:
        """Logits (B, K + 1, H, W)."""
        tokens = self.temporal(series, keys)[0]
        pixels = self.head(self.spatial(tokens.transpose(1, 2)))
        batch, classes = pixels.shape[:2]
        if self.layout == "patch":
            pixels = pixels.view(batch, classes, self.side, self.side, self.patch, self.patch).transpose(3, 4)
        return pixels.reshape(batch, classes, self.side * self.patch, self.side * self.patch)


def date_weights(attention: Tensor, keys: Tensor | None, rule: str) -> Tensor:
    """Class-to-date weights (B, K, T)."""
    if rule == "double_softmax":
        return torch.softmax(attention if keys is None else attention.masked_fill(~keys[:, None], -1e30), -1)
    weights = attention if keys is None else attention * keys[:, None]
    return weights / weights.sum(-1, keepdim=True).clamp(min=1e-12)


def refined(cam: Tensor, embedding: Tensor, config: ClassifierConfig) -> Tensor:
    """One map's CAM (h, w) averaged with its propagation along the affinities of an embedding (D, h, w)."""
    affinity = config.affinity
    height, width = cam.shape

    def around(x: Tensor) -> Tensor:
        step = affinity.dilation
        padded = F.pad(x[None], (step,) * 4, mode="replicate")[0]
        views = [
            padded[:, step * (1 + r) : step * (1 + r) + height, step * (1 + c) : step * (1 + c) + width]
            for r, c in NEIGHBOURS
        ]
        return torch.stack(views)

    neighbours = around(embedding)
    cosine = F.cosine_similarity(neighbours, embedding[None], dim=1)
    spread = (neighbours.var(0) + 1e-12).sqrt().mean(0)
    weights = torch.softmax(cosine / (spread + 1e-8) / affinity.temperature, 0)
    moved = cam
    for _ in range(affinity.iterations):
        moved = (weights * around(moved[None])[:, 0]).sum(0)
    return (cam + moved) / 2


def embeddings(output: Output, keys: Tensor | None, config: ClassifierConfig) -> Tensor:
    """Class-weighted date tokens (B, K, D, h, w), a class at a time."""
    weights = date_weights(output.attention, keys, config.affinity.time_weights)
    side = output.spatial_map.shape[-1]
    classes = [
        (weights[:, k, None, :, None] * output.date_tokens).sum(2).transpose(1, 2).unflatten(2, (side, side))
        for k in range(weights.shape[1])
    ]
    return torch.stack(classes, 1)


def assigned(similarity: Tensor, config: ClassifierConfig) -> Tensor:
    """Balanced assignment (R,) of one class's rows to its prototypes."""
    plan = torch.exp(similarity / config.prototypes.epsilon)
    plan = plan / plan.sum()
    rows, count = plan.shape
    for _ in range(config.prototypes.iterations):
        plan = plan / plan.sum(0, keepdim=True) / count
        plan = plan / plan.sum(1, keepdim=True) / rows
    return plan.argmax(1)


def contrast(
    output: Output, cams: Tensor, tags: Tensor, prototypes: Prototypes, config: ClassifierConfig
) -> tuple[Tensor, Tensor, Tensor]:
    """L_cbl, and foreground and background prototypes moved, a class at a time."""
    settings = config.prototypes
    classes, count, _ = prototypes.foreground.shape
    foreground, background = prototypes.foreground.clone(), prototypes.background.clone()
    total = torch.zeros(())
    for side in range(2):
        every = F.normalize(
            torch.cat([prototypes.foreground if side == 0 else foreground, prototypes.background]), dim=-1
        )
        own = foreground if side == 0 else background
        moves = prototypes.foreground_moves if side == 0 else prototypes.background_moves
        losses, moved = [], own.clone()
        for k in range(classes):
            features = F.normalize(output.class_tokens[:, k].reshape(-1, own.shape[-1]), dim=-1)
            cam = cams[:, k].reshape(-1)
            owner = tags[:, k].bool()[:, None].expand(-1, cams[0, k].numel()).reshape(-1)
            rows = (owner & (cam >= settings.foreground)) if side == 0 else cam < settings.background
            moved[k] = F.normalize(own[k], dim=-1)
            if not rows.any():
                continue
            chosen, strength = features[rows], cam[rows]
            if settings.weights == "published":
                strength = strength**2
            elif side == 1:
                strength = 1 - strength
            to = assigned(chosen.detach() @ own[k].t(), config)
            logits = chosen @ every.flatten(0, 1).t() / settings.temperature
            losses.append(F.cross_entropy(logits, (side * classes + k) * count + to))
            for n in range(count):
                share = strength[to == n]
                if share.sum() > 0:
                    direction = F.normalize((share[:, None] * chosen[to == n].detach()).sum(0), dim=0)
                    momentum = settings.momentum
                    if settings.momentum_warmup:
                        momentum = min(momentum, float(moves[k, n] / (moves[k, n] + 1)))
                    moved[k, n] = F.normalize(momentum * own[k, n] + (1 - momentum) * direction, dim=0)
        if losses:
            total = total + torch.stack(losses).sum() / (len(losses) if settings.present_only else classes)
        if side == 0:
            foreground = moved
        else:
            background = moved
    return total, foreground, background


def classifier_loss(
    output: Output, tags: Tensor, keys: Tensor | None, prototypes: Prototypes, config: ClassifierConfig, *, start: bool
) -> dict[str, Tensor]:
    """Parts of the classifier's loss under the names of the training loop; start: the prototypes have started."""
    soft = F.multilabel_soft_margin_loss
    cams = (output.spatial_map.relu() + output.temporal_map.relu()) / 2
    embedding = embeddings(output, keys, config)
    differences = []
    for window, k in tags.bool().nonzero().tolist():
        cam = cams[window, k]
        differences.append((cam - refined(cam, embedding[window, k], config)).abs().mean())
    spatial, temporal = output.spatial_map.mean((2, 3)), output.temporal_map.mean((2, 3))
    parts = {
        "tags": soft(output.logits, tags),
        "auxiliary": config.loss.auxiliary * (soft(spatial, tags) + soft(temporal, tags)) / 2,
        "affinity": config.loss.affinity * torch.stack(differences).mean(),
    }
    if start:
        normalised = cams.detach() / (cams.detach().amax((2, 3), keepdim=True) + 1e-5)
        loss, foreground, background = contrast(output, normalised, tags, prototypes, config)
        parts["contrast"] = config.loss.contrast * loss
        with torch.no_grad():
            prototypes.foreground.copy_(foreground)
            prototypes.background.copy_(background)
    return parts


@torch.no_grad()
def clue_cams(
    output: Output, tags: Tensor, keys: Tensor | None, prototypes: Prototypes, config: ClassifierConfig
) -> Tensor:
    """Clue-based CAMs (B, K, h, w), divided by their maxima, a window and class at a time."""
    cams = torch.zeros_like(output.spatial_map)
    embedding = embeddings(output, keys, config)
    for window, k in tags.bool().nonzero().tolist():
        features = F.normalize(output.class_tokens[window, k], dim=-1)
        near, far = (
            (features @ F.normalize(side[k], dim=-1).t()).amax(1)
            for side in (prototypes.foreground, prototypes.background)
        )
        raw = (near - far).relu().view_as(cams[window, k])
        cam = refined(raw, embedding[window, k], config)
        cams[window, k] = cam / (cam.max() + 1e-5)
    return cams


def sweep(cams: Tensor, truth: np.ndarray, thresholds: np.ndarray, classes: int) -> np.ndarray:
    """Confusion matrices of all thresholds, a pass a threshold and a window at a time."""
    matrices = []
    for threshold in thresholds:
        matrix = np.zeros((classes + 1, classes + 1), np.int64)
        for cam, labels in zip(cams, truth, strict=True):
            large = F.interpolate(cam[None], size=labels.shape, mode="bilinear", align_corners=True)
            planes = torch.cat([torch.full_like(large[:, :1], float(threshold)), large], 1)
            matrix += confusion_matrix(labels, planes.argmax(1)[0].numpy().astype(np.uint8), classes=classes)
        matrices.append(matrix)
    return np.stack(matrices)


@contextmanager
def nothing_shared() -> Iterator[None]:
    """Within it, today's models encode every window whole, whatever patches it shares with others of its batch."""
    with patch("exact_core.models.tsvit.shared_patches", return_value=None):
        yield


def map_windows(
    model: Callable[[Series], Tensor],
    series: Callable[[NDArray[np.int16], NDArray[np.bool_]], Series],
    pixels: NDArray[np.int16],
    clear: NDArray[np.bool_],
    *,
    side: int,
    classes: int,
    batch: int,
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Probabilities (K + 1, H, W) and labels (H, W) as of 44aab5d: windows overlap by half, each is encoded whole.

    Args:
        model: a segmenter.
        series: pixels (B, T, C, S, S) and clear patches (B, T, S/2, S/2) of windows as the model reads them.
        pixels: of the area, (T, C, H, W).
        clear: its clear patches, (T, H/2, W/2).
        side: S.
        classes: K.
        batch: windows a call.
    """
    height, width = pixels.shape[2:]
    measured = (pixels != 0).any(1).sum(0)
    weights = window_weights(side)
    total, weight = np.zeros((classes + 1, height, width), np.float32), np.zeros((height, width), np.float32)
    for row in window_starts(height, side, side // 2):
        rows, patches = slice(row, row + side), slice(row // 2, (row + side) // 2)
        columns = window_starts(width, side, side // 2)
        wanted = [col for col in columns if (measured[rows, col : col + side] >= MIN_DATES).any()]
        for first in range(0, len(wanted), batch):
            chosen = wanted[first : first + batch]
            cut = np.stack([pixels[:, :, rows, col : col + side] for col in chosen])
            seen = np.stack([clear[:, patches, col // 2 : (col + side) // 2] for col in chosen])
            with torch.inference_mode(), nothing_shared():
                found = class_probabilities(model(series(cut, seen))).numpy()
            for col, values in zip(chosen, found, strict=True):
                total[:, rows, col : col + side] += values * weights
                weight[rows, col : col + side] += weights
    probabilities = total / np.maximum(weight, np.finfo(np.float32).tiny)
    seen_there = (measured >= MIN_DATES) & (weight > 0)
    return probabilities, np.where(seen_there, probabilities.argmax(0), VOID).astype(np.uint8)
