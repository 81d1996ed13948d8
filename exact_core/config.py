"""The configuration of a run: frozen pydantic models, unknown keys refused.

A recipe (`exact_core.recipes`) returns a `RunConfig`; YAML is its saved form; `override` changes single keys by
dotted path. Sources named "paper" are Zhu et al., CVPR 2025 (arXiv 2412.03968).
"""

from __future__ import annotations

import datetime as dt
import difflib
import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticUndefined

from exact_core.errors import ConfigError
from exact_core.yaml_values import read_yaml


class Settings(BaseModel):
    """Base of every part: immutable, and a misspelt key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class SyntheticConfig(Settings):
    """The generated season (`exact_core.data.synthetic` states the formula)."""

    scenes: int = Field(12, ge=3, description="number of independent scenes")
    scene_size: int = Field(120, ge=24, description="side of a scene, pixels of 10 m")
    crops: int = Field(6, ge=1, le=18, description="number of crop classes")
    dates: int = Field(20, ge=1, description="mean number of acquisitions in the season; irregular, varies by scene")
    season_days: int = Field(300, ge=30, description="length of the season, days")
    cloud_share: float = Field(0.25, ge=0.0, le=0.95, description="mean share of pixels under cloud or shadow")
    background_share: float = Field(0.2, ge=0.0, le=0.9, description="share of fields that are no crop")
    void_share: float = Field(0.02, ge=0.0, le=0.5, description="share of fields whose truth is unknown (void)")
    field_size: float = Field(14.0, gt=2.0, description="typical field side, pixels")
    variation: float = Field(1.0, ge=0.0, description="field-to-field variation of phenology; 1 is realistic")
    crops_per_neighbourhood: float = Field(2.0, gt=0.0, description="about how many crops a window contains")
    imbalance: float = Field(
        0.0, ge=0.0, description="crop k of 1..K is sown in proportion to k^-imbalance; 0: all alike, 1: Zipf's law"
    )
    tag_noise: float = Field(
        0.0,
        ge=0.0,
        le=0.5,
        description="share of the tags of training and validation windows that are wrong: left out, and as many absent "
        "crops tagged instead",
    )


class PastisConfig(Settings):
    """Which official folds of PASTIS serve which split, and how its dates are read."""

    train_folds: tuple[int, ...] = Field((1, 2, 3), description="folds of the training split (paper)")
    validation_folds: tuple[int, ...] = Field((4,), description="folds of the validation split (paper)")
    test_folds: tuple[int, ...] = Field((5,), description="folds of the test split (paper)")
    classes: int = Field(18, ge=1, le=254, description="number of crop classes K; labels are 0 background, 1..K")
    void_label: int | None = Field(None, description="label of void pixels; None: K + 1, as in PASTIS")
    date_limit: Literal["thin", "cut"] = Field(
        "thin",
        description="what becomes of more than data.max_dates dates: thinned over the whole season; or cut, as "
        "published, to the first by day of year, whatever the year",
    )
    day_rounding: Literal["exact", "published"] = Field(
        "exact",
        description="published: the 19 days of the year that float32 scaling by 365.0001 and truncation lose are read "
        "as the day before",
    )

    @model_validator(mode="after")
    def _disjoint(self) -> PastisConfig:
        folds = [*self.train_folds, *self.validation_folds, *self.test_folds]
        if len(set(folds)) != len(folds):
            raise ValueError(f"a fold serves two splits: {sorted(folds)}; name each fold once")
        if not self.train_folds:
            raise ValueError("train_folds is empty; name at least one fold")
        return self


GermanyBand = Literal[
    "B04", "B03", "B02", "B08", "B05", "B06", "B07", "B8A", "B11", "B12", "B01", "B09", "B10"
]  # fmt: skip


class GermanyConfig(Settings):
    """Which tiles of the Germany dataset (MTLCC) are read, and how; "MTLCC" is Russwurm and Koerner 2018."""

    years: tuple[Literal[2016, 2017], ...] = Field(
        (2016, 2017), min_length=1, description="seasons that are read, a folder dataYY each (MTLCC: both; TSViT: 2016)"
    )
    fold: int = Field(
        0,
        ge=0,
        description="number of the lists of training and validation tiles, train_foldN and test_foldN (TSViT: 0)",
    )
    bands: tuple[GermanyBand, ...] = Field(
        get_args(GermanyBand),
        min_length=1,
        description="bands that are read, in the order in which they are stored (MTLCC, TSViT: all 13)",
    )
    unknown: Literal["background", "void"] = Field(
        "background",
        description="what land without a declared field of the 17 crops is: background, as in PASTIS; or void, never "
        "scored and no target, as MTLCC and TSViT have it",
    )

    @model_validator(mode="after")
    def _once(self) -> GermanyConfig:
        for name in ("years", "bands"):
            values = getattr(self, name)
            if len(set(values)) < len(values):
                raise ValueError(f"{name} {list(values)} name one twice")
        return self


OffsetRule = Literal["correct", "refuse", "stated", 0, 1000]


class SeasonConfig(Settings):
    """A season of Sentinel-2 L2A on disk. Each key may also stand in the source's own `season.yaml`."""

    start: dt.date | None = Field(None, description="first day of the season; None: the first acquisition")
    days: int | None = Field(
        None, ge=1, le=3660, description="length of the season, days; None: to the last acquisition"
    )
    bands: tuple[str, ...] = Field(
        ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12"),
        min_length=1,
        description="band names, in the order in which they are stored",
    )
    labels: str | None = Field(
        None,
        description="label raster, parcel layer or table of tags (.csv); None: labels/crop_type.tif, then "
        "labels/parcels.*, then labels/tags.csv",
    )
    outlines: str | None = Field(
        None,
        description="layer of field outlines, no crop in it, which says what pixels belong together; None: "
        "labels/outlines.*, and where there is none, no outlines are used",
    )
    attribute: str | None = Field(None, description="parcel attribute with the crop code; None: crop_code")
    classes: dict[int | str, str] | None = Field(None, description="crop code -> class name; None: labels/legend.csv")
    legend: Literal["hcat"] | None = Field(
        None,
        description="what crop codes mean: hcat, the codes of EuroCrops (attribute EC_hcat_c), those that are not "
        "listed being what is above them; None: labels/legend.csv",
    )
    level: Literal["name", "group"] = Field(
        "name", description="column of the legend that makes the classes: each name one, or each group"
    )
    overlap_order: str | None = Field(
        None,
        description="parcel attribute that puts overlapping parcels of different crops in order, the lowest number "
        "first; None: void where they overlap",
    )
    void_codes: tuple[int | str, ...] = Field((), description="codes of the label layer whose truth is unknown")
    missing_code: Literal["void", "background", "refuse"] = Field(
        "void",
        description="what a parcel without a code (null or empty, whether codes are numbers or text) is: void, its "
        "truth unknown; background, no crop; or a reason to refuse the layer",
    )
    offset: OffsetRule = Field(
        "correct",
        description="where metadata and pixels disagree whether a date holds the offset of 1000 of baseline 04.00: the "
        "pixels win, and it is noted; the season is refused; or metadata are believed, unchecked. A number: the offset "
        "of all dates, whatever metadata and pixels say",
    )
    scale: float | None = Field(
        None,
        gt=0,
        description="reflectance of a stored 1, of all dates, as 0.0001; None: as metadata state, else 0.0001 for "
        "whole numbers and 1 for fractions, within bounds that reflectance of land has",
    )
    clear_classes: tuple[int, ...] = Field(
        (4, 5, 6, 7, 11),
        description="classes of the scene classification that show the ground: vegetation, bare soil, water, "
        "unclassified, snow",
    )
    cloud_erosion: int = Field(
        0,
        ge=0,
        le=50,
        description="what is not clear and narrower than twice this, pixels, is a misjudgement",
    )
    cloud_dilation: int = Field(0, ge=0, le=200, description="margin, pixels, around clouds that is not clear either")
    min_clear: float = Field(
        0.0, ge=0, lt=1, description="dates with a smaller clear share are left out; 0: their clear parts are used"
    )
    leave_out: tuple[dt.date, ...] = Field(
        (), description="dates that are not read, as one whose clouds the scene classification calls clear"
    )
    longest_gap: int = Field(
        120, ge=1, description="days of the season that may pass without a clear look at an average place"
    )

    @model_validator(mode="after")
    def _bands_once(self) -> SeasonConfig:
        if len(set(self.bands)) < len(self.bands):
            raise ValueError(f"bands {list(self.bands)} name a band twice")
        return self


class DataConfig(Settings):
    """How a source is cut into windows and splits."""

    window: int = Field(24, ge=4, description="window side, pixels (paper)")
    window_metres: float | None = Field(
        None,
        gt=0,
        description="window side of a season in metres: the nearest even number of pixels of its grid, at least 4; "
        "None, or where data.window is set and this is not: data.window",
    )
    stride: int | None = Field(
        None,
        ge=1,
        description="step between windows, pixels; None: the window, or a third of it in a scene too small to split",
    )
    tag_share: float = Field(0.01, ge=0.0, lt=1.0, description="a crop is tagged where it covers more than this share")
    min_support: int = Field(
        0, ge=0, description="a crop that is tagged in fewer training windows of a season is refused; 0: noted at most"
    )
    void_tags: Literal["positive", "complete"] = Field(
        "positive",
        description="what tags say of a window that holds void pixels: positive, a crop that could grow there untagged "
        "is neither there nor absent, void pixels teach nothing, and a window that is all void is left out; or "
        "complete, void is no crop (paper)",
    )
    max_dates: int = Field(60, ge=2, description="longer series are thinned over the whole season to this many dates")
    validation_share: float = Field(0.15, ge=0.0, lt=1.0, description="share of blocks or scenes for validation")
    test_share: float = Field(0.25, ge=0.0, lt=1.0, description="share of blocks or scenes for testing")
    fewest_squares: int = Field(
        100,
        ge=1,
        description="squares of a table of tags, apart from each other, from which some are split off; fewer are all "
        "learned from, and figures are computed on them",
    )
    shard_windows: int = Field(64, ge=1, description="windows in a shard file")
    synthetic: SyntheticConfig = Field(SyntheticConfig(), description="the season that a synthetic source generates")
    pastis: PastisConfig = Field(
        PastisConfig(), description="which folds a PASTIS source gives to which split, and how its dates are read"
    )
    germany: GermanyConfig = Field(GermanyConfig(), description="which tiles of the Germany dataset are read, and how")
    season: SeasonConfig = Field(SeasonConfig(), description="how a season folder is read: bands, clouds, labels")

    @model_validator(mode="after")
    def _something_to_train_on(self) -> DataConfig:
        if self.validation_share + self.test_share >= 1:
            raise ValueError(
                f"validation_share {self.validation_share:g} and test_share {self.test_share:g} leave "
                f"nothing to train on"
            )
        return self


class EncoderConfig(Settings):
    """The TSViT encoder: patches, then time, then space (paper)."""

    patch: int = Field(2, ge=1, description="patch side, pixels (paper)")
    dim: int = Field(128, ge=4, description="embedding width D (paper)")
    temporal_depth: int = Field(8, ge=1, description="blocks over dates (paper: 8, segmenter 4)")
    spatial_depth: int = Field(4, ge=1, description="blocks over patches (paper: 4)")
    heads: int = Field(4, ge=1, description="attention heads (paper)")
    head_dim: int = Field(64, ge=1, description="width of a head (paper: 64, segmenter 32)")
    mlp_ratio: int = Field(4, ge=1, description="hidden width of a block's MLP over D (paper)")
    dropout: float = Field(0.0, ge=0.0, lt=1.0, description="dropout probability (paper: 0)")
    residual: Literal["pre_norm", "normed", "double"] = Field(
        "pre_norm",
        description="what attention adds to: x (pre_norm); LN(x), as the published classifier; x + LN(x), as the "
        "published segmenter",
    )
    dates: Literal["season_day", "day_of_year"] = Field(
        "season_day",
        description="date embedding: Fourier features of days since season start, or a learned table by day of year "
        "as published",
    )
    mask_padding: bool = Field(True, description="keep padding dates out of attention; False reproduces the published")
    pad_dates: int = Field(
        60, ge=1, description="with mask_padding off, series are padded to this many dates, all attended to (published)"
    )
    mask_clouds: bool = Field(True, description="keep cloudy dates out of a patch's attention where clouds are known")
    checkpointing: bool = Field(
        False,
        description="keep only each block's input for the backward pass and compute the block again: a fraction of the "
        "memory for about a third more time, same gradients",
    )


class PrototypeConfig(Settings):
    """Spatial clues (paper)."""

    per_class: int = Field(2, ge=1, description="foreground and background prototypes a class, N_p (paper)")
    foreground: float = Field(0.4, ge=0, le=1, description="normalised CAM from which a pixel is foreground (paper)")
    background: float = Field(0.2, ge=0, le=1, description="normalised CAM below which a pixel is background (paper)")
    iterations: int = Field(3, ge=1, description="Sinkhorn iterations (paper)")
    epsilon: float = Field(0.05, gt=0, description="Sinkhorn temperature (paper)")
    assignment: Literal["argmax", "gumbel"] = Field(
        "argmax",
        description="which prototype a pixel moves: its likeliest by Sinkhorn; or one drawn by a hard Gumbel-softmax "
        "that takes the Sinkhorn matrix for logits, as published",
    )
    momentum: float = Field(0.999, ge=0, lt=1, description="weight of the old prototype (paper)")
    momentum_warmup: bool = Field(
        True,
        description="running mean until `momentum` is reached; False: `momentum` from the first update (published)",
    )
    weights: Literal["cam", "published"] = Field(
        "cam",
        description="weight of a pixel in its prototype's mean: CAM for foreground and 1 - CAM for background; or CAM "
        "squared for both, as published, where surest background weighs nothing",
    )
    temperature: float = Field(0.1, gt=0, description="temperature of the contrastive softmax (paper)")
    present_only: bool = Field(
        True, description="average the contrast over classes that have pixels; False: over all, absent as 0 (published)"
    )


class AffinityConfig(Settings):
    """Temporal clues (paper)."""

    dilation: int = Field(2, ge=1, description="distance of the 8 neighbours, patches (paper)")
    iterations: int = Field(3, ge=0, description="propagation steps (paper)")
    temperature: float = Field(0.3, gt=0, description="divisor of cosine / std before the softmax (paper)")
    time_weights: Literal["attention", "double_softmax"] = Field(
        "attention",
        description="class-to-time weights: attention renormalised over real dates, or a second softmax over it "
        "as published",
    )


class TrainingConfig(Settings):
    """One loop for both models."""

    epochs: int = Field(20, ge=1, description="passes over the training windows (paper: 20, segmenter 100)")
    batch: int = Field(48, ge=1, description="windows a step, of all processes together (paper)")
    fewest_steps: int = Field(
        1, ge=1, description="steps an epoch: where there are too few windows for so many, the batch is smaller"
    )
    learning_rate: float = Field(1e-3, gt=0, description="peak rate of AdamW (paper)")
    minimum_rate: float = Field(5e-6, ge=0, description="rate at the end of the cosine (paper)")
    start_rate: float = Field(1e-5, ge=0, description="rate at the first step of the warm-up")
    warmup_epochs: float = Field(3.0, ge=0, description="length of the linear warm-up, epochs (paper)")
    schedule: Literal["cosine", "published"] = Field(
        "cosine",
        description="continuous warm-up + cosine every step; or the published one: moved once an epoch, cosine counted "
        "from the first step",
    )
    weight_decay: float = Field(0.0, ge=0, description="AdamW weight decay (paper: 0)")
    clip_norm: float | None = Field(None, gt=0, description="gradient norm limit; None: off")
    precision: Literal["fp32", "bf16"] = Field("fp32", description="bf16 runs the forward pass under autocast")
    compile: bool = Field(False, description="torch.compile the transformer blocks; pays on a GPU, not on a CPU")
    flips: bool = Field(True, description="random flips and quarter turns of a training window")
    keep_dates: float = Field(
        1.0, gt=0, le=1, description="smallest share of dates kept by random date dropping; 1: off"
    )
    keep_best: bool = Field(True, description="deliver the checkpoint with the best validation figure, not the last")

    def batch_of(self, windows: int) -> int:
        """Windows a step of a training on so many windows."""
        return max(1, min(self.batch, windows // self.fewest_steps))


class LossConfig(Settings):
    """Weights of the classifier's loss (paper)."""

    auxiliary: float = Field(1.0, ge=0, description="weight of the mean of the two patch losses (paper)")
    contrast: float = Field(0.01, ge=0, description="weight of L_cbl (paper)")
    affinity: float = Field(0.015, ge=0, description="weight of L_tap (paper)")
    contrast_start: float = Field(
        4000 / 15000, ge=0, lt=1, description="share of the steps after which prototypes start (paper: 4,000 of 15,000)"
    )


class ClassifierConfig(Settings):
    """The tag classifier and how it learns."""

    encoder: EncoderConfig = Field(EncoderConfig(), description="the classifier's TSViT encoder")
    prototypes: PrototypeConfig = Field(
        PrototypeConfig(), description="spatial clues: how prototypes are moved and contrasted"
    )
    affinity: AffinityConfig = Field(
        AffinityConfig(), description="temporal clues: how patches that look alike at a crop's dates share their CAM"
    )
    loss: LossConfig = Field(LossConfig(), description="weights of the parts of the classifier's loss")
    training: TrainingConfig = Field(TrainingConfig(), description="how the classifier learns")


class RelearnConfig(Settings):
    """Masks learned again by a model of single pixels (not in the paper; `exact_core.clues.pixels`)."""

    rounds: int = Field(
        2, ge=0, description="times that the model is taught; 0: masks stay as the CAMs give them (paper)"
    )
    margin: float = Field(
        0.2,
        ge=0,
        lt=1,
        description="distance of a pixel's strongest CAM from the threshold from which it teaches; at most three "
        "quarters of the way to 0 or 1",
    )
    pixels: int = Field(40_000, ge=100, description="pixels that teach, over all windows")
    ridge: float = Field(0.03, gt=0, description="inverse strength of the regression's ridge penalty")
    balance: float = Field(
        0.5,
        ge=0,
        le=1,
        description="pixels teach with the weight (share of their class among them) ** -balance; 0: all alike, 1: "
        "classes alike",
    )


class MasksConfig(Settings):
    """From CAMs to pseudo masks (paper)."""

    cam: Literal["clue", "fused"] = Field("clue", description="clue-based CAM (paper) or the fused CAM (baseline)")
    stretch: Literal["maximum", "min_max"] = Field(
        "maximum",
        description="how a window's CAM of a class is brought to [0, 1]: divided by its maximum; or min-max (paper), "
        "which makes background of the weakest part of a window that is all one crop",
    )
    propagation: bool = Field(
        True, description="average the clue-based CAM with its propagation along the temporal clues (paper)"
    )
    shifts: bool = Field(
        True,
        description="average CAMs over windows shifted within a patch: pixel resolution; False: as in the paper",
    )
    diffusion: int = Field(
        8, ge=0, description="steps of diffusion among neighbouring pixels that look alike; 0: none, as in the paper"
    )
    diffusion_temperature: float = Field(
        0.3, gt=0, description="contrast, in medians of the window, that a step of diffusion hardly crosses"
    )
    threshold: Annotated[float, Field(ge=0, le=1)] | Literal["borders", "otsu", "valley"] = Field(
        "borders", description="background plane in CAM units, or the rule that chooses it without masks"
    )
    overlaps: bool = Field(
        True,
        description="a crop that an overlapping window is not tagged with is ruled out in the part that it shares; "
        "False: each window's own tags alone (paper)",
    )
    fields: bool = Field(
        True,
        description="where outlines of fields are known, one crop a field: the scores of its pixels are averaged; "
        "outlines that images or tags contradict are left out",
    )
    outside: Literal["pixels", "borders", "background"] = Field(
        "pixels",
        description="what pixels outside of all outlines are: what they look like, as outlines may be missing; the "
        "same, but background beside a field; or background, as outlines are of all fields",
    )
    relearn: RelearnConfig = Field(RelearnConfig(), description="how a model of single pixels learns the masks again")
    validation_masks: bool = Field(
        False,
        description="choose the threshold by mIoU against the dense labels of the validation split instead, and say so",
    )
    align_corners: bool = Field(False, description="bilinear enlargement with corners aligned, as published")
    batch: int = Field(32, ge=1, description="windows a forward pass")
    judged: int = Field(128, ge=1, description="training windows that the quality of the masks is estimated on")
    minimum_quality: float = Field(
        0.0, ge=0, le=1, description="gate: a run whose masks' expected mIoU is below this fails before the segmenter"
    )


class UtaeConfig(Settings):
    """The U-TAE segmenter (Garnot & Landrieu, ICCV 2021: "U-TAE")."""

    encoder_widths: tuple[int, ...] = Field(
        (64, 64, 64, 128), min_length=2, description="channels of the encoder's levels, finest first (U-TAE)"
    )
    decoder_widths: tuple[int, ...] = Field(
        (32, 32, 64, 128),
        min_length=2,
        description="channels of the decoder's levels, finest first; the last is the temporal attention's (U-TAE)",
    )
    heads: int = Field(16, ge=1, description="heads of the temporal attention, G (U-TAE)")
    key_dim: int = Field(4, ge=1, description="width of a head's keys and master query (U-TAE)")
    attention_width: int = Field(256, ge=2, description="channels that the heads divide among themselves (L-TAE)")
    period: float = Field(1000.0, gt=1, description="base of the sinusoidal date encoding, days (L-TAE)")
    groups: int = Field(4, ge=1, description="groups of the encoder's group normalisation (U-TAE)")
    dropout: float = Field(0.2, ge=0, lt=1, description="dropout of the temporal attention (L-TAE)")

    @model_validator(mode="after")
    def _divisible(self) -> UtaeConfig:
        if len(self.encoder_widths) != len(self.decoder_widths):
            raise ValueError(
                f"encoder_widths {list(self.encoder_widths)} and decoder_widths {list(self.decoder_widths)} must have "
                f"one entry a level each"
            )
        for width in (*self.encoder_widths, self.decoder_widths[-1]):
            if width < 1 or width % self.heads or width % self.groups:
                raise ValueError(f"width {width} is no multiple of heads {self.heads} and groups {self.groups}")
        if min(self.decoder_widths) < 1:
            raise ValueError(f"decoder_widths {list(self.decoder_widths)} must be positive")
        if self.attention_width % (2 * self.heads):
            raise ValueError(
                f"attention_width {self.attention_width} is no multiple of 2 x heads = {2 * self.heads}: each head "
                f"needs as many sines as cosines"
            )
        return self


class SegmenterConfig(Settings):
    """The segmenter and how it learns."""

    model: Literal["tsvit", "utae"] = Field(
        "tsvit", description="TSViT (paper), which `encoder` describes, or U-TAE, which `utae` describes"
    )
    encoder: EncoderConfig = Field(
        EncoderConfig(temporal_depth=4, head_dim=32), description="the encoder of a TSViT segmenter"
    )
    utae: UtaeConfig = Field(UtaeConfig(), description="the layers of a U-TAE segmenter")
    training: TrainingConfig = Field(TrainingConfig(epochs=100), description="how the segmenter learns")
    calibrate_on: Literal["targets", "labels"] = Field(
        "targets",
        description="what the temperature of confidence is fitted to on the validation split: what the segmenter "
        "learns from, pseudo masks or dense labels; or dense labels wherever there are any, also from tags",
    )
    layout: Literal["patch", "published"] = Field(
        "patch", description="a patch's outputs are its own pixels; or the published order (see docs/method.md)"
    )

    @property
    def title(self) -> str:
        """The model's name as its paper writes it."""
        return {"tsvit": "TSViT", "utae": "U-TAE"}[self.model]

    @property
    def reading(self) -> EncoderConfig:
        """How the model wants its batches: days and masks.

        U-TAE counts days since the season's start and never attends to padding, whatever TSViT would do.
        """
        if self.model == "tsvit":
            return self.encoder
        return self.encoder.model_copy(update={"dates": "season_day", "mask_padding": True})


class EvaluationConfig(Settings):
    """What is scored and shown."""

    batch: int = Field(32, ge=1, description="windows a forward pass")
    panels: int = Field(6, ge=0, description="windows shown in the report")


class MappingConfig(Settings):
    """How a whole area is mapped."""

    batch: int | None = Field(
        None,
        ge=1,
        description="windows a forward pass; None: as many as a share of the free memory holds. Another number rounds "
        "otherwise in the last bits",
    )
    stride: Annotated[int, Field(ge=2, multiple_of=2)] | None = Field(
        None,
        description="step between windows, pixels; None: three quarters of a window, the widest that loses nothing "
        "(docs/results.md). A window itself leaves no overlap",
    )
    probabilities: bool = Field(False, description="write the probability of every class too, a byte a pixel and class")
    rows: int = Field(64, ge=2, description="rows in memory, and kept as finished, at a time")


class TransferConfig(Settings):
    """When a new season is too unlike the training season for its map to be published."""

    windows: int = Field(128, ge=4, description="windows that are sampled of a season")
    pixels: int = Field(2048, ge=64, description="pixel series that are sampled of a season, spread over the windows")
    held_out_dates: float = Field(
        0.5,
        gt=0,
        le=1,
        description="share of its dates that the series of each held-out window is made of, drawn anew for each: "
        "another season has another list of dates, and what that does to a series belongs to what two samples of one "
        "season differ by; 1: all of them",
    )
    reach: int = Field(15, ge=1, description="a day counts as seen if there is a clear look within so many days")
    neighbours: int = Field(5, ge=1, description="a series is as far from training as from its n-th nearest there")
    parts: int = Field(4, ge=1, le=16, description="parts of the season whose reflectance is compared one by one")
    bands: tuple[float, float] = Field(
        (0.3, 0.8),
        description="Wasserstein-1 distance of a band's reflectance, over the season, in standard deviations of "
        "training, beyond that of held-out windows of the training season "
        "(from which to look, from which not to publish)",
    )
    part_bands: tuple[float, float] = Field(
        (0.6, 1.2),
        description="the distance of `bands` in a single part of the season "
        "(from which to look, from which not to publish)",
    )
    outside: tuple[float, float] = Field(
        (0.1, 0.35),
        description="share of series that lie outside what training showed, beyond that of held-out windows (5 %) "
        "(from which to look, from which not to publish)",
    )
    shift: tuple[float, float] = Field(
        (15.0, 30.0),
        description="days by which the season is early or late (from which to look, from which not to publish)",
    )
    confidence: tuple[float, float] = Field(
        (0.1, 0.25),
        description="loss of a class's mean confidence, of 1, against held-out windows "
        "(from which to look, from which not to publish)",
    )
    dates: tuple[float, float] = Field(
        (0.05, 0.34),
        description="share of the key times, weighted by what they tell of the classes, that is not seen "
        "(from which to look, from which not to publish)",
    )
    smallest_class: float = Field(
        0.01, ge=0, lt=1, description="classes with a smaller share of the sampled pixels are not judged"
    )
    refuse: Literal["never", "look", "do_not_publish"] = Field(
        "never", description="verdict from which the stage fails, so that no map is made; never: it only warns"
    )

    @model_validator(mode="after")
    def _ascending(self) -> TransferConfig:
        for name in ("bands", "part_bands", "outside", "shift", "confidence", "dates"):
            look, stop = getattr(self, name)
            if not 0 <= look <= stop:
                raise ValueError(f"{name} = ({look:g}, {stop:g}): expected two values from 0, the smaller first")
        return self


class PromotionConfig(Settings):
    """When a new segmenter takes the place of the one in use."""

    minimum_gain: float = Field(
        0.0, ge=-1, le=1, description="what the lower end of the difference's confidence interval must exceed, of 1"
    )
    first_floor: float = Field(
        0.0,
        ge=0,
        le=1,
        description="mIoU (F1 of tags without dense labels) below which a first model, with no champion to compare "
        "with, does not become champion",
    )
    largest_class_loss: float = Field(
        0.1, ge=0, le=1, description="no class may lose more than this in its own figure, of 1"
    )
    confidence: float = Field(0.95, gt=0.5, lt=1, description="level of the confidence interval of the difference")
    samples: int = Field(2000, ge=100, description="draws of the paired bootstrap")


class RunConfig(Settings):
    """Everything a run needs beside its source."""

    recipe: str = Field(description="name of the recipe this configuration started from")
    seed: int = Field(0, ge=0, le=2**53 - 1, description="seed of generation, initialisation, order and augmentation")
    device: str = Field(
        "auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$", description="'auto' (CUDA when there is one), 'cpu' or 'cuda'"
    )
    data: DataConfig = Field(DataConfig(), description="how a source is read and cut into windows and splits")
    classifier: ClassifierConfig = Field(ClassifierConfig(), description="the tag classifier and how it learns")
    masks: MasksConfig = Field(MasksConfig(), description="how CAMs become pseudo masks")
    segmenter: SegmenterConfig = Field(SegmenterConfig(), description="the segmenter and how it learns")
    evaluation: EvaluationConfig = Field(EvaluationConfig(), description="what is scored and shown")
    promotion: PromotionConfig = Field(PromotionConfig(), description="when a new segmenter becomes champion")
    mapping: MappingConfig = Field(MappingConfig(), description="how a whole area is mapped")
    transfer: TransferConfig = Field(
        TransferConfig(), description="when a new season is too unlike the training season for its map to be published"
    )

    @model_validator(mode="after")
    def _window_of_patches(self) -> RunConfig:
        for name, encoder in (("classifier", self.classifier.encoder), ("segmenter", self.segmenter.encoder)):
            if self.data.window % encoder.patch:
                raise ValueError(
                    f"data.window {self.data.window} is not a multiple of {name}.encoder.patch {encoder.patch}"
                )
            if encoder.patch != 1 and encoder.patch % 2:
                raise ValueError(
                    f"{name}.encoder.patch {encoder.patch} is neither 1 nor even: clouds are known per 2 x 2"
                )
        if self.data.window % 2 or self.data.synthetic.scene_size % 2:
            raise ValueError(
                f"data.window {self.data.window} and data.synthetic.scene_size {self.data.synthetic.scene_size} must "
                f"be even: clouds are known per 2 x 2 pixels"
            )
        return self

    def digest(self, *parts: str) -> str:
        """SHA-256 (hex) of the named parts, or of everything: equal configurations have equal digests."""
        data = self.model_dump(mode="json")
        chosen = {part: data[part] for part in parts} if parts else data
        return hashlib.sha256(json.dumps(chosen, sort_keys=True).encode()).hexdigest()

    def save(self, path: Path) -> None:
        """Write the resolved configuration as YAML."""
        path.write_text(yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False), encoding="utf-8")


def load_config(path: Path) -> RunConfig:
    """Read a saved configuration.

    Raises:
        ConfigError: the file is missing, is no YAML mapping, or a key or value is wrong.
    """
    return build(read_settings(path), where=str(path))


def read_settings(path: Path) -> dict[str, Any]:
    """A mapping of settings as a file has it.

    Raises:
        ConfigError: the file is missing, or is no YAML mapping.
    """
    try:
        data = read_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such configuration file; write one with `exact config RECIPE`") from None
    except OSError as error:
        raise ConfigError(f"{path}: not a readable configuration file: {error}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid YAML in UTF-8: {error}") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: expected a mapping of settings, got {type(data).__name__}")
    return data


def build(data: dict[str, Any], *, where: str) -> RunConfig:
    """A validated RunConfig; `where` names the origin of the values in an error."""
    try:
        return RunConfig.model_validate(data)
    except ValidationError as error:
        raise ConfigError(describe(error, where=where, model=RunConfig)) from error


def describe(error: ValidationError, *, where: str, model: type[BaseModel]) -> str:
    """One line a problem: the key, the value, what is expected, and the nearest existing key."""
    lines = []
    for problem in error.errors():
        path = [str(part) for part in problem["loc"]]
        key = ".".join(path) or "(whole)"
        if problem["type"] == "extra_forbidden":
            near = _nearest(path, model)
            lines.append(f"{where}: unknown key {key!r}{near}; `exact config` lists every key")
        else:
            value = problem.get("input")
            # A whole mapping or file as the value would bury the message.
            shown = "" if isinstance(value, dict | bytes | str) and len(str(value)) > 200 else f" = {value!r}"
            lines.append(f"{where}: {key}{shown}: {problem['msg']}{_example(path, model)}")
    return "\n".join(lines)


def _example(path: list[str], model: type[BaseModel]) -> str:
    """'; for example KEY=VALUE' with the default of a field, where it has a plain one."""
    field = None
    for part in path:
        field = model.model_fields.get(part)
        if field is None:
            return ""
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            model = field.annotation
    default = None if field is None else field.get_default(call_default_factory=True, validated_data={})
    if default is None or default is PydanticUndefined or isinstance(default, BaseModel | dict) or default == "":
        return ""
    plain = list(default) if isinstance(default, tuple) else default
    return f"; for example {'.'.join(path)}={yaml.safe_dump(plain, default_flow_style=True).partition(chr(10))[0]}"


def _nearest(path: list[str], model: type[BaseModel]) -> str:
    """' (did you mean …?)' from the fields beside the unknown one."""
    for part in path[:-1]:
        field = model.model_fields.get(part)
        if field is None or not (isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)):
            return ""
        model = field.annotation
    close = difflib.get_close_matches(path[-1], list(model.model_fields), n=1)
    return f" (did you mean {'.'.join([*path[:-1], close[0]])!r}?)" if close else ""


def as_recipe(config: RunConfig) -> RunConfig:
    """The same values as those of a recipe: what a region's `season.yaml` says goes before them."""
    return _with_set(config, frozenset(), stride=False)


def _with_set(config: RunConfig, names: frozenset[str], *, stride: bool) -> RunConfig:
    """The same values; of `data.season` these are set by the run, and so is `data.stride` or not.

    What is set goes before `season.yaml`, whether or not it is the default (`model_fields_set`).
    """
    data = config.data
    season = SeasonConfig.model_construct(_fields_set=set(names), **dict(data.season))
    fields = (data.model_fields_set | {"season"}) - {"stride"} | ({"stride"} if stride else set())
    values = {**dict(data), "season": season}
    return config.model_copy(update={"data": DataConfig.model_construct(_fields_set=fields, **values)})


def override(config: RunConfig, assignments: list[str]) -> RunConfig:
    """A copy with single keys changed; each assignment is `dotted.key=value`, the value in YAML.

    Changed keys of `data.season`, and `data.stride`, go before a region's `season.yaml`, whatever their value.

    Raises:
        ConfigError: an assignment without `=`, an unknown key, or a value that does not fit.
    """
    data = config.model_dump(mode="json")
    names, stride = set(config.data.season.model_fields_set), "stride" in config.data.model_fields_set
    sized: set[str] = set()
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"override {assignment!r}: expected key=value, for example classifier.training.epochs=5")
        parts = key.strip().split(".")
        try:
            value = read_yaml(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"override {assignment!r}: the value is not valid YAML: {error}") from error
        node = data
        for depth, part in enumerate(parts[:-1]):
            if not isinstance(node.get(part), dict):
                near = _nearest(parts[: depth + 1], RunConfig)
                raise ConfigError(f"override {assignment!r}: unknown key {'.'.join(parts[: depth + 1])!r}{near}")
            node = node[part]
        node[parts[-1]] = value
        sized |= set(_below(parts, value, ["data"])) & {"window", "window_metres"}
        names |= set(_below(parts, value, ["data", "season"]))
        stride |= "stride" in _below(parts, value, ["data"])
    if sized == {"window"}:
        data["data"]["window_metres"] = None
    return _with_set(build(data, where="override"), frozenset(names), stride=stride)


def _below(parts: list[str], value: Any, above: list[str]) -> list[str]:
    """Keys right below a part of the configuration that an assignment changes."""
    if len(parts) > len(above):
        return [parts[len(above)]] if parts[: len(above)] == above else []
    for part in above[len(parts) :] if above[: len(parts)] == parts else ["a key of no mapping"]:
        value = value.get(part) if isinstance(value, dict) else None
    return list(value) if isinstance(value, dict) else []
