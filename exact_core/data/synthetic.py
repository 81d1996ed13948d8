"""A generator of synthetic seasons with known ground truth.

A scene is drawn at twice its resolution and averaged to pixels, so that borders are mixed:

1. Fields: Voronoi cells of a jittered grid of seeds under a rotated, stretched metric. Where the two nearest seeds are
   almost equally far, the margin is grass (background).
2. Crops: each neighbourhood of one window draws a short mix of crops from a Dirichlet law. A field draws its crop from
   its neighbourhood's mix, or is background (forest, built-up or grass) or void. With `imbalance` a, the law's mean
   for crop k is proportional to k^-a instead of equal.
3. Phenology: crop k's canopy cover on day d is
       g_k(d) = p / (1 + exp((a - d) / s)) / (1 + exp((d - b) / s)),
   with green-up a, senescence b and slope s of the crop, and a, b, p varying from field to field.
4. Reflectance of a band: (1 - g) soil + g leaf_k, times a smooth texture. Soil brightness varies by field, leaf spectra
   by crop. Sensor noise of 0.004 is added.
5. Dates: a 5-day revisit from which acquisitions are dropped at random. Clouds cover a random share of each date, in
   smooth blobs, and cast a displaced shadow. `clear` marks patches with neither.
6. Tags follow from the labels. With `tag_noise` q, each tag of a training or validation window is left out with
   probability q and, with the same probability, a crop that is not there is tagged as well. Test windows stay right.

Everything follows from the seed. Equal seeds give equal bytes on one platform.
"""

from __future__ import annotations

import datetime as dt
import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from exact_core.config import DataConfig, SyntheticConfig
from exact_core.data.windows.cutting import Scene, add_scene, mark_self_scored, split_names
from exact_core.data.windows.dataset import CLEAR_PATCH, VOID
from exact_core.data.windows.writer import DatasetWriter

__all__ = ["BANDS", "CROPS", "Crop", "generate_scene", "ingest_synthetic", "survey_synthetic", "wrong_tags"]

BANDS = ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12")
SEASON_START = dt.date(2022, 1, 15)
ORIGIN = (500_000.0, 5_600_000.0)
PIXEL = 10.0

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Crop:
    """A phenology: green-up and senescence (fractions of the season), slope (days), peak cover, leaf spectrum shift."""

    name: str
    green_up: float
    senescence: float
    slope: float
    peak: float
    tint: tuple[float, float, float]
    """Factors on the visible, near infrared and short-wave infrared bands of a green leaf."""


CROPS = (
    Crop("winter cereal", 0.18, 0.56, 9.0, 0.90, (1.00, 1.00, 1.00)),
    Crop("maize", 0.50, 0.86, 8.0, 0.92, (0.95, 1.08, 0.95)),
    Crop("rapeseed", 0.08, 0.46, 9.0, 0.95, (1.35, 1.05, 0.95)),
    Crop("sugar beet", 0.42, 0.97, 11.0, 0.95, (1.00, 1.15, 0.85)),
    Crop("potato", 0.44, 0.72, 7.0, 0.88, (1.10, 1.02, 0.90)),
    Crop("spring cereal", 0.30, 0.63, 8.0, 0.86, (1.00, 0.97, 1.05)),
    Crop("sunflower", 0.45, 0.78, 8.0, 0.80, (1.20, 0.95, 1.05)),
    Crop("soybean", 0.52, 0.80, 8.0, 0.85, (0.95, 1.12, 0.90)),
    Crop("alfalfa", 0.15, 0.90, 12.0, 0.85, (0.95, 1.05, 0.95)),
    Crop("winter barley", 0.15, 0.50, 8.0, 0.88, (1.02, 1.00, 1.02)),
    Crop("peas", 0.28, 0.52, 7.0, 0.82, (1.08, 1.05, 0.95)),
    Crop("flax", 0.30, 0.57, 6.0, 0.72, (1.15, 0.95, 1.05)),
    Crop("vineyard", 0.38, 0.88, 14.0, 0.50, (1.10, 0.90, 1.10)),
    Crop("orchard", 0.30, 0.92, 14.0, 0.65, (1.00, 0.95, 1.05)),
    Crop("sorghum", 0.55, 0.84, 8.0, 0.80, (1.05, 1.00, 1.05)),
    Crop("winter triticale", 0.19, 0.59, 10.0, 0.84, (0.98, 0.98, 1.02)),
    Crop("vegetables", 0.36, 0.60, 6.0, 0.75, (1.10, 1.05, 0.90)),
    Crop("meadow", 0.12, 0.98, 16.0, 0.70, (1.00, 1.00, 1.00)),
)

# Reflectance in the order of BANDS: typical values of field spectra.
SOIL = np.array([0.070, 0.095, 0.125, 0.150, 0.170, 0.185, 0.200, 0.215, 0.290, 0.240])
LEAF = np.array([0.025, 0.055, 0.030, 0.085, 0.280, 0.370, 0.400, 0.420, 0.180, 0.085])
FOREST = np.array([0.022, 0.038, 0.024, 0.060, 0.180, 0.230, 0.250, 0.270, 0.130, 0.060])
BUILT_UP = np.array([0.120, 0.140, 0.155, 0.170, 0.190, 0.200, 0.215, 0.220, 0.250, 0.230])
CLOUD = np.array([0.550, 0.540, 0.550, 0.560, 0.580, 0.590, 0.600, 0.600, 0.450, 0.350])
GRASS = Crop("grass", 0.10, 1.05, 20.0, 0.60, (1.05, 0.92, 1.08))
SHADOW = 0.35
"""Share of light left in a cloud's shadow."""
VISIBLE, NEAR, SHORT = slice(0, 4), slice(4, 8), slice(8, 10)


def generate_scene(settings: SyntheticConfig, *, window: int, seed: int, name: str) -> Scene:
    """One scene of side `settings.scene_size`, cut to whole windows later.

    Returns:
        pixels int16 (T, 10, S, S), days int16 (T,), labels uint8 (S, S), clear uint8 (T, S/2, S/2).
    """
    rng = np.random.default_rng(seed)
    size = settings.scene_size
    fine = 2 * size
    field, border = _fields(rng, fine=fine, field_size=2 * settings.field_size)
    kind, seeds_crop = _assign_crops(rng, settings, field, window=2 * window)
    days = _dates(rng, settings)

    count = len(kind)
    shift = settings.variation * rng.normal(0, 8.0, (count, 2))
    peak = np.clip(1 + settings.variation * rng.normal(0, 0.10, count), 0.5, 1.3)
    brightness = np.clip(1 + settings.variation * rng.normal(0, 0.15, count), 0.6, 1.5)
    tint = 1 + settings.variation * rng.normal(0, 0.04, (count, len(BANDS)))
    texture = 1 + 0.05 * smooth_field(rng, fine, scale=6.0)
    grass_edge = _cover(GRASS, days, settings.season_days, np.zeros((1, 2)), np.ones(1))[0]

    # Cover and leaf of every field, then a look-up by field number: (count, T) and (count, C).
    cover = np.zeros((count, len(days)))
    leaf = np.tile(LEAF, (count, 1))
    for crop_index, crop in enumerate((*CROPS[: settings.crops], GRASS), start=1):
        chosen = seeds_crop == (crop_index if crop is not GRASS else -1)
        cover[chosen] = _cover(crop, days, settings.season_days, shift[chosen], peak[chosen])
        leaf[chosen] = LEAF * _tint(crop)
    leaf *= tint
    soil = SOIL * brightness[:, None]
    for code, spectrum in ((-2, FOREST), (-3, BUILT_UP)):
        soil[seeds_crop == code] = spectrum * brightness[seeds_crop == code, None]

    pixels = np.empty((len(days), len(BANDS), size, size), np.int16)
    clear = np.empty((len(days), size // CLEAR_PATCH, size // CLEAR_PATCH), np.uint8)
    for t in range(len(days)):
        by_field = (1 - cover[:, t, None]) * soil + cover[:, t, None] * leaf
        edge = (1 - grass_edge[t]) * SOIL + grass_edge[t] * LEAF * _tint(GRASS)
        image = np.where(border, edge[:, None, None], by_field.T[:, field]) * texture
        image = image.reshape(len(BANDS), size, 2, size, 2).mean((2, 4))
        image += rng.normal(0, 0.004, image.shape)
        image, covered = _clouds(rng, image, settings.cloud_share)
        pixels[t] = np.clip(np.rint(image * 10_000), 1, 16_000)
        clear[t] = ~covered.reshape(size // 2, 2, size // 2, 2).any((1, 3))

    labels_fine = np.where(border, 0, kind[field]).astype(np.uint8)
    labels = labels_fine[::2, ::2]
    return Scene(
        name=name,
        pixels=pixels,
        days=days.astype(np.int16),
        labels=labels,
        clear=clear,
        crs="EPSG:32631",
        transform=(PIXEL, 0.0, ORIGIN[0], 0.0, -PIXEL, ORIGIN[1]),
        origin=f"synthetic scene {name}",
    )


def _tint(crop: Crop) -> Floats:
    factors = np.ones(len(BANDS))
    factors[VISIBLE], factors[NEAR], factors[SHORT] = crop.tint
    return factors


def _fields(rng: np.random.Generator, *, fine: int, field_size: float) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Field number and margin flag of every fine pixel."""
    angle, stretch = rng.uniform(0, np.pi), rng.uniform(1.0, 1.9)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    metric = np.diag([1 / np.sqrt(stretch), np.sqrt(stretch)]) @ turn
    # Seeds on a jittered grid of the turned and stretched plane; the grid covers every corner of the scene.
    reach = int(np.ceil(fine * 1.5 / field_size)) + 2
    grid = np.stack(np.meshgrid(np.arange(-reach, reach), np.arange(-reach, reach)), -1).reshape(-1, 2)
    points = (grid + rng.uniform(-0.38, 0.38, grid.shape)) * field_size
    rows, cols = np.mgrid[0:fine, 0:fine]
    place = np.stack([rows, cols], -1).reshape(-1, 2) @ metric.T
    cell = np.floor(place / field_size).astype(np.int64)
    width = 2 * reach
    best = np.full(len(place), np.inf)
    second = np.full(len(place), np.inf)
    owner = np.zeros(len(place), np.int64)
    # A jittered seed lies at most one cell away, its rival at most two.
    for dx in range(-2, 3):
        for dy in range(-2, 3):
            near = np.clip(cell + np.array([dx, dy]) + reach, 0, width - 1)
            number = near[:, 1] * width + near[:, 0]
            distance = np.linalg.norm(place - points[number], axis=1)
            closer = distance < best
            second = np.where(closer, best, np.minimum(second, distance))
            owner = np.where(closer, number, owner)
            best = np.minimum(best, distance)
    border = (second - best) < 0.06 * field_size
    _, compact = np.unique(owner, return_inverse=True)
    return compact.reshape(fine, fine), border.reshape(fine, fine)


def _assign_crops(
    rng: np.random.Generator, settings: SyntheticConfig, field: NDArray[np.int64], *, window: int
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Label of every field, and what is drawn there: crop 1..K, -1 grass, -2 forest, -3 built-up."""
    count, fine = int(field.max()) + 1, len(field)
    cells = -(-fine // window)
    concentration = min(settings.crops_per_neighbourhood / settings.crops, 10.0)
    prior = np.arange(1, settings.crops + 1) ** -settings.imbalance
    mixes = rng.dirichlet(concentration * settings.crops * prior / prior.sum(), (cells, cells))
    flat = field.reshape(-1)
    area = np.maximum(np.bincount(flat, minlength=count), 1)
    rows, cols = np.divmod(np.arange(fine * fine), fine)
    row = (np.bincount(flat, rows, count) / area).astype(np.int64) // window
    col = (np.bincount(flat, cols, count) / area).astype(np.int64) // window
    drawn = np.array([rng.choice(settings.crops, p=mixes[r, c]) + 1 for r, c in zip(row, col, strict=True)])
    no_crop = rng.random(count) < settings.background_share
    drawn = np.where(no_crop, rng.choice([-1, -2, -3], count, p=[0.4, 0.4, 0.2]), drawn)
    label = np.where(drawn > 0, drawn, 0)
    label = np.where(rng.random(count) < settings.void_share, VOID, label)
    return label.astype(np.uint8), drawn


def _dates(rng: np.random.Generator, settings: SyntheticConfig) -> NDArray[np.int64]:
    revisit = np.arange(rng.integers(0, 5), settings.season_days, 5)
    wanted = int(np.clip(rng.normal(settings.dates, 0.1 * settings.dates), 2, len(revisit)))
    return np.sort(rng.choice(revisit, wanted, replace=False))


def _cover(crop: Crop, days: NDArray[np.int64], season: int, shift: Floats, peak: Floats) -> Floats:
    """Canopy cover (fields, T) by the formula of the module's docstring."""
    up = (crop.green_up * season + shift[:, :1] - days) / crop.slope
    down = (days - crop.senescence * season - shift[:, 1:]) / crop.slope
    cover: Floats = np.clip(crop.peak * peak[:, None] / (1 + np.exp(up)) / (1 + np.exp(down)), 0, 1)
    return cover


def _clouds(rng: np.random.Generator, image: Floats, share: float) -> tuple[Floats, NDArray[np.bool_]]:
    """The image under clouds, and the mask of clouds and shadows."""
    size = image.shape[-1]
    covered = np.zeros((size, size), bool)
    # Skies are mostly clear or mostly not: a U-shaped law with the wanted mean. Its draw comes before the test, so
    # that scenes of different cloud shares see the same ground.
    amount = rng.beta(0.4, 0.4 * (1 - share) / share) if share > 0 else 0.0
    blobs = smooth_field(rng, size, scale=14.0)
    if amount < 0.02:
        return image, covered
    edge = np.quantile(blobs, 1 - amount)
    opacity = 1 / (1 + np.exp(-(blobs - edge) / 0.08))
    shade = np.roll(opacity, (6, 4), (0, 1))
    image = image * (1 - (1 - SHADOW) * shade * (1 - opacity))
    image = image * (1 - opacity) + CLOUD[:, None, None] * opacity
    covered = (opacity > 0.15) | (shade > 0.3)
    return image, covered


def smooth_field(rng: np.random.Generator, size: int, *, scale: float) -> Floats:
    """A periodic Gaussian random field (size, size), mean 0 and standard deviation 1, smooth over `scale` pixels."""
    frequency = np.fft.fftfreq(size)
    square = frequency[:, None] ** 2 + frequency[None, :] ** 2
    transfer = np.exp(-2 * (np.pi * scale / 2.5) ** 2 * square)
    field = np.fft.ifft2(np.fft.fft2(rng.normal(size=(size, size))) * transfer).real
    field -= field.mean()
    return np.asarray(field / field.std())


def survey_synthetic(config: DataConfig) -> tuple[int, int, int]:
    """What will be generated: numbers of dates, bands and crops."""
    return config.synthetic.dates, len(BANDS), config.synthetic.crops


def ingest_synthetic(config: DataConfig, out: Path, *, seed: int) -> None:
    """Generate `config.synthetic.scenes` scenes and write them as a dataset. Whole scenes go to one split.

    With both shares at 0, every scene is trained and scored on.

    Raises:
        ConfigError: a validation share, but no test share.
        DataError: too few scenes for the splits.
    """
    settings = config.synthetic
    splits = split_names(
        settings.scenes, validation=config.validation_share, test=config.test_share, seed=seed, what="scenes"
    )
    with DatasetWriter(
        out,
        name="synthetic",
        source="synthetic",
        bands=BANDS,
        classes=tuple(crop.name for crop in CROPS[: settings.crops]),
        window=config.window,
        season_start=SEASON_START,
        season_days=settings.season_days,
        shard_windows=config.shard_windows,
    ) as writer:
        if config.validation_share == config.test_share == 0:
            mark_self_scored(writer, "data.validation_share and data.test_share are 0")
        for number, split in enumerate(splits):
            scene = generate_scene(
                settings, window=config.window, seed=seed * 10_000 + number, name=f"scene{number:03d}"
            )
            report = None
            if settings.tag_noise and split != "test":
                report = functools.partial(
                    wrong_tags, share=settings.tag_noise, rng=np.random.default_rng((seed, number, 1))
                )
            add_scene(writer, scene, config, split=split, report=report)


def wrong_tags(tags: NDArray[np.uint8], *, share: float, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Tags (K,) as a careless observer reports them: each left out with probability `share`, and as many invented."""
    missed = (tags == 1) & (rng.random(len(tags)) < share)
    absent = np.flatnonzero(tags == 0)
    invented = rng.permutation(absent)[: rng.binomial(int(tags.sum()), share)]
    told = np.where(missed, 0, tags).astype(np.uint8)
    told[invented] = 1
    return told
