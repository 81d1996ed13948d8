"""Where windows come from: one table of sources, which stages, messages, help and `exact ingest` follow.

A new source is a module with two functions, and a line of SOURCES that names them (CONTRIBUTING.md). This module
imports none of them until it is asked: reading a source's name needs neither rasterio nor torch.
"""

from __future__ import annotations

import calendar
import datetime as dt
import difflib
import pkgutil
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from exact_core.config import DataConfig, RunConfig
from exact_core.errors import ConfigError

if TYPE_CHECKING:
    from exact_core.data.season.folder import SeasonImages
    from exact_core.data.season.tags import TagTable
    from exact_core.data.windows.dataset import DatasetManifest

__all__ = [
    "SOURCES",
    "Source",
    "Survey",
    "absolute_source",
    "check_mapped",
    "check_there",
    "dataset_title",
    "default_recipe",
    "is_source",
    "known_sources",
    "local_path",
    "parse_season",
    "parse_source",
    "place_names",
    "region_name",
    "short_name",
    "source_of",
    "source_title",
    "with_season",
]


class Survey(NamedTuple):
    """The content of a source, known without reading a pixel.

    dates: at most, of a window. classes: If None, not known yet. cells: of a large area, the CRS of each. If None, it
    is one scene.
    """

    dates: int
    bands: int
    classes: int | None = None
    cells: tuple[str, ...] = ()


@dataclass(frozen=True)
class Source:
    """A kind of source. Functions are named as MODULE:FUNCTION and imported when they are called."""

    name: str
    """What it is called before the colon."""
    about: str
    """What `exact ingest NAME` does, one sentence."""
    ingests: str
    """(place, DataConfig, out, *, seed): writes a window dataset. Without `place` where the source needs none. A source
    that also `opens` gets `origin` too: the address as it was given, whereas `place` is the local copy."""
    surveys: str
    """(place, DataConfig) -> the numbers of `Survey`, as many as are known. Without `place` likewise."""
    place: str = ""
    """What stands after the colon, as PATH. If empty, nothing does."""
    place_help: str = ""
    """What that is, for the command line."""
    opens: str = ""
    """(place, DataConfig, *, trained) -> SeasonImages, where there are images of an area, which can be mapped."""
    tags: str = ""
    """(place, DataConfig) -> (TagTable or None, notes): tags of squares on those images. If empty, there are none."""
    merges: str = ""
    """(place, DataConfig) -> DataConfig with the source's own settings. If empty, it has none."""
    warns: str = ""
    """(place, DataConfig) -> warnings about uninformative tags, without reading an image. If empty, none are known
    before the source is read."""
    recipe: str = "demo"
    """The recipe that fits it where none is named."""
    checks: str = ""
    """(place): raises ConfigError for an address of another form."""
    names: str = ""
    """(place): what an address may be named after, the nearest first."""
    quick: bool = False
    """Whether ingesting takes seconds, so that a preview does it by itself."""

    @property
    def form(self) -> str:
        """How it is written: NAME or NAME:PATH."""
        return f"{self.name}:{self.place}" if self.place else self.name

    def settings(self, place: str | Path, config: DataConfig) -> DataConfig:
        """The settings in use: those that the run sets, then those of the source."""
        if not self.merges:
            return config
        merged: DataConfig = pkgutil.resolve_name(self.merges)(*self._where(place), config)
        return merged

    def ingest(self, place: str | Path, config: DataConfig, out: Path, *, seed: int, origin: str) -> None:
        """Write the source's windows to a folder.

        Args:
            place: local path of the source.
            config: settings of the data.
            out: folder of the dataset.
            seed: of random draws.
            origin: the source as it was given, which may be an address that was fetched to `place`.

        Raises:
            ConfigError, DataError: what the source's function raises.
        """
        named = {"origin": origin} if self.opens else {}
        pkgutil.resolve_name(self.ingests)(*self._where(place), config, out, seed=seed, **named)

    def survey(self, place: str | Path, config: DataConfig) -> Survey:
        """Look at what is there, without reading a pixel. Errors as `ingest`."""
        return Survey(*pkgutil.resolve_name(self.surveys)(*self._where(place), config))

    def warnings(self, place: str | Path, config: DataConfig) -> list[str] | None:
        """What stands out in its tags. If None, that is not known before it is read."""
        if not self.warns:
            return None
        found: list[str] = pkgutil.resolve_name(self.warns)(*self._where(place), config)
        return found

    def open(
        self, place: str | Path, config: DataConfig, *, trained: tuple[dt.date, int] | None = None
    ) -> SeasonImages:
        """The images of an area, without labels.

        Args:
            place: local path of the source.
            config: the season and how its images are read.
            trained: first day and length of the season of the model that will be applied. If None, no model.

        Raises:
            ConfigError, DataError: invalid images.
        """
        images: SeasonImages = pkgutil.resolve_name(self.opens)(*self._where(place), config, trained=trained)
        return images

    def tagged(self, place: str | Path, config: DataConfig) -> tuple[TagTable | None, list[str]]:
        """Tags of squares on the images, None where labels are others or there are none, and what is said of them.

        Raises:
            ConfigError, DataError: labels that ingest would refuse.
        """
        if not self.tags:
            return None, []
        found: tuple[TagTable | None, list[str]] = pkgutil.resolve_name(self.tags)(*self._where(place), config)
        return found

    def _where(self, place: str | Path) -> tuple[Any, ...]:
        return (Path(place),) if self.place else ()


SOURCES: tuple[Source, ...] = (
    Source(
        "synthetic",
        "Generate a season with known truth.",
        ingests="exact_core.data.synthetic:ingest_synthetic",
        surveys="exact_core.data.synthetic:survey_synthetic",
        quick=True,
    ),
    Source(
        "pastis",
        "Read PASTIS in its public layout.",
        ingests="exact_core.data.pastis.patches:ingest_pastis",
        surveys="exact_core.data.pastis.patches:survey_pastis",
        place="PATH",
        place_help="Folder with metadata.geojson, DATA_S2 and ANNOTATIONS.",
        recipe="pastis24",
    ),
    Source(
        "germany",
        "Read the Germany dataset (MTLCC) as published, from its TFRecord tiles.",
        ingests="exact_core.data.germany.tiles:ingest_germany",
        surveys="exact_core.data.germany.tiles:survey_germany",
        place="PATH",
        place_help="Folder with classes.txt, geotransforms.csv, tileids, data16, data17.",
        recipe="germany",
    ),
    Source(
        "season",
        "Read a season of Sentinel-2 L2A from a folder, here or in a store.",
        ingests="exact_core.data.season.folder:ingest_season",
        surveys="exact_core.data.season.folder:survey_season",
        place="PATH",
        place_help="Folder of a STAC collection, GeoTIFFs, .SAFE or .zip products, and labels, or s3://BUCKET/PREFIX.",
        checks="exact_core.data.stac.address:check_stored",
        names="exact_core.data.stac.address:stored_names",
        warns="exact_core.data.season.folder:survey_tags",
        opens="exact_core.data.season.folder:open_season",
        tags="exact_core.data.season.folder:open_tags",
        merges="exact_core.data.season.folder:merged",
        recipe="season",
    ),
    Source(
        "stac",
        "Read a season of Sentinel-2 L2A from a STAC API or catalogue.",
        ingests="exact_core.data.season.folder:ingest_season",
        surveys="exact_core.data.season.folder:survey_season",
        place="URL",
        place_help="Address of the catalogue with a query, as ?collection=NAME&bbox=W,S,E,N&cloud=60.",
        opens="exact_core.data.season.folder:open_season",
        tags="exact_core.data.season.folder:open_tags",
        recipe="season",
        checks="exact_core.data.stac.address:check_address",
        names="exact_core.data.stac.address:area_names",
        merges="exact_core.data.season.folder:merged",
    ),
)
"""All sources, in the order in which messages list them."""


def known_sources(*, images: bool = False) -> str:
    """The forms of all sources, or of those that have `images` of an area, for a message or a help text."""
    *first, last = [source.form for source in SOURCES if source.opens or not images]
    return f"{', '.join(first)} or {last}" if first else last


def check_mapped(text: str) -> None:
    """Accept a source that can be mapped.

    Raises:
        ConfigError: one without images of an area.
    """
    if not source_of(text).opens:
        raise ConfigError(f"{text!r}: only images of an area can be mapped, expected {known_sources(images=True)}")


def source_of(text: str) -> Source:
    """The kind of a source by its name, or by the whole text.

    Raises:
        ConfigError: there is none of this name.
    """
    source = _find(text)
    if source is None:
        raise ConfigError(f"unknown source {text!r}, expected {known_sources()}{_meant(text)}")
    return source


def check_there(text: str) -> None:
    """Accept a source that is well formed and, if it is a folder or file of this disk, there: nothing is opened.

    Raises:
        ConfigError: what is wrong, and the nearest right form.
    """
    path = local_path(text)
    if path is None or path.exists():
        return
    source = source_of(text)
    near = difflib.get_close_matches(path.name, [each.name for each in _beside(path)], n=1)
    guess = f". Did you mean {source.name}:{path.parent / near[0]}?" if near else ""
    raise ConfigError(f"{text!r}: no such folder{guess or '. Give its path'} ({source.place_help})")


def _beside(path: Path) -> list[Path]:
    try:
        return [each for each in path.parent.iterdir() if each.is_dir() or each.name == "collection.json"]
    except OSError:
        return []


def _meant(text: str) -> str:
    """'; did you mean …?' with the nearest right form of what is no source, if something is near."""
    kind, colon, place = text.partition(":")
    names = [source.name for source in SOURCES]
    near = difflib.get_close_matches(kind.lower(), names, n=1)
    if text and Path(text).exists():
        if (Path(text) / "dataset.json").is_file():
            return f". {text} is a window dataset, which was ingested already"
        form = f"{_kind_of(Path(text))}:{text}"
    elif re.match(r"(https?|s3)://", text):
        form = f"{'season' if kind == 's3' else 'stac'}:{text}"
    elif near:
        found = next(source for source in SOURCES if source.name == near[0])
        form = found.name if not found.place else f"{found.name}:{place or found.place}"
    elif not colon and (
        names_here := difflib.get_close_matches(text, [each.name for each in _beside(Path(text))], n=1)
    ):
        form = f"season:{names_here[0]}"
    else:
        return ""
    return f". Did you mean {form}?"


def _kind_of(folder: Path) -> str:
    """The source that the content of a folder suggests."""
    if (folder / "metadata.geojson").exists():
        return "pastis"
    return "germany" if (folder / "geotransforms.csv").exists() else "season"


def is_source(text: str) -> bool:
    """Whether a text names a source, as for ingest, rather than the path of a dataset."""
    source = _find(text)
    return source is not None and (":" in text) == bool(source.place)


def default_recipe(text: str) -> str:
    """The recipe that fits a source, or the source that a dataset was made of."""
    source = _find(text)
    return "demo" if source is None else source.recipe


def parse_source(text: str) -> tuple[str, str]:
    """Name and path of a source. `source_of` returns the source.

    Raises:
        ConfigError: text of another form.
    """
    source, place = source_of(text), text.partition(":")[2]
    if bool(place) != bool(source.place) or (":" in text and not source.place):
        raise ConfigError(f"unknown source {text!r}, expected {known_sources()}{_meant(text)}")
    # A path on the command line loses the second slash.
    if source.place == "PATH" and (address := re.match(r"(https?):/+(.*)", place)):
        raise ConfigError(
            f"{text!r}: the images are not on this disk. Give stac:{address[1]}://{address[2]}?collection=NAME&"
            f"bbox=W,S,E,N instead, or fetch them first, then name the folder: exact fetch "
            f"{address[1]}://{address[2]} FOLDER --collection NAME --bbox W S E N --start YYYY-MM-DD --end YYYY-MM-DD"
        )
    if source.checks:
        pkgutil.resolve_name(source.checks)(place)
    elif re.match(r"\w+://", place):
        raise ConfigError(f"{text!r}: a {source.name} source is read from a folder of this disk. Give its path")
    return source.name, place


def local_path(text: str) -> Path | None:
    """The file or folder of this disk that a source names. None where it names none."""
    name, place = parse_source(text)
    return Path(place) if source_of(name).place == "PATH" and "://" not in place else None


YEAR = re.compile(r"^(?:19|20)\d\d(?!\d)[-_. ]?|[-_. ]?(?<!\d)(?:19|20)\d\d$")
"""The year that a name begins or ends with."""


def place_names(text: str) -> list[str]:
    """What a source may be named after, the nearest first: its area or box, or the names of its path.

    None is returned of a folder that `exact fetch` or a step published: its digest is another one every season.
    """
    kind, place = parse_source(text)
    source = source_of(kind)
    if "://" not in place or not source.names:
        return [name for name in reversed(Path(place).absolute().parts[1:]) if name] if place else [kind]
    found: list[str] = pkgutil.resolve_name(source.names)(place)
    return found


def short_name(text: str) -> str:
    """What a source is called in the names of folders and runs: its area or box, or the last name of its path."""
    names = place_names(text) or [parse_source(text)[0]]
    return re.sub(r"[^\w.-]+", "-", names[0]).strip("-.") or parse_source(text)[0]


def region_name(text: str) -> str:
    """What the maps and models of a source are named after; empty: it has no name.

    Of a source with images of an area it is the region, the name of its place without a year, so that the seasons of a
    region share maps and a model. A folder that is named by a year alone takes the name above it. Of any other source
    it is the kind.
    """
    kind, _ = parse_source(text)
    if not source_of(kind).opens:
        return kind
    return next(filter(None, (YEAR.sub("", name) for name in place_names(text))), "")


def source_title(manifest: DatasetManifest) -> str:
    """What the data of a dataset are called. Several datasets in one have no source of their own."""
    return short_name(manifest.source) if is_source(manifest.source) else manifest.name


def dataset_title(manifest: DatasetManifest) -> str:
    """What MLflow calls a dataset: by its source, and the first day of its season."""
    return f"{source_title(manifest)} {manifest.season_start}"


def absolute_source(text: str) -> str:
    """The source with its path made absolute, as steps need it that run elsewhere. An address stays as it is."""
    path = local_path(text)
    return text if path is None else f"{text.partition(':')[0]}:{path.absolute()}"


def with_season(config: RunConfig, season: str, *, kind: str) -> RunConfig:
    """The configuration for one season: a year (1 January, whole year) or START/DAYS, as 2021-09-01/300.

    Args:
        config: the run's.
        season: If empty, what the source or the configuration says.
        kind: name of the source.

    Raises:
        ConfigError: a season for a source that has its own, or text of another form.
    """
    if not season:
        return config
    if not source_of(kind).opens:
        raise ConfigError(f"season = {season!r}: a {kind} source has its own season. Leave the parameter empty")
    start, days = parse_season(season)
    # What was set key by key goes before a parameter.
    by_key = config.data.season.model_fields_set
    update = {key: value for key, value in (("start", start), ("days", days)) if key not in by_key}
    chosen = config.data.season.model_copy(update=update)
    return config.model_copy(update={"data": config.data.model_copy(update={"season": chosen})})


def parse_season(season: str) -> tuple[dt.date, int]:
    """First day and length in days of a season: a year (1 January, whole year) or START/DAYS, as 2021-09-01/300.

    Raises:
        ConfigError: text of another form.
    """
    match = re.fullmatch(r"(\d{4})(?:-(\d\d)-(\d\d)/(\d+))?", season, re.ASCII)
    try:
        if match is None:
            raise ValueError("expected a year (2021) or START/DAYS (2021-09-01/300)")
        year, month, day, days = match.groups()
        start = dt.date(int(year), int(month or 1), int(day or 1))
        length = int(days) if days else 365 + calendar.isleap(int(year))
        if length < 1:
            raise ValueError("a season has at least 1 day")
    except ValueError as error:
        raise ConfigError(f"season = {season!r}: {error}") from error
    return start, length


def _find(text: str) -> Source | None:
    return next((source for source in SOURCES if source.name == text.partition(":")[0]), None)
