import numpy as np
import pytest

from exact_core.config import SyntheticConfig
from exact_core.data.synthetic import BANDS, CROPS, generate_scene
from exact_core.data.windows.dataset import VOID

SMALL = SyntheticConfig(scene_size=96, dates=20)


def scene(**changes):
    return generate_scene(SMALL.model_copy(update=changes), window=24, seed=3, name="s")


def test_shapes_ranges_and_repeat():
    one, two = scene(), scene()
    dates = len(one.days)
    assert one.pixels.shape == (dates, len(BANDS), 96, 96)
    assert one.clear.shape == (dates, 48, 48)
    assert (np.diff(one.days) >= 5).all()
    assert one.days.min() >= 0
    assert one.days.max() < SMALL.season_days
    assert one.pixels.min() >= 1
    np.testing.assert_array_equal(one.pixels, two.pixels)
    np.testing.assert_array_equal(one.labels, two.labels)
    assert set(np.unique(one.labels)) <= {*range(SMALL.crops + 1), VOID}


def test_without_clouds_noise_or_mixing_a_field_follows_its_crops_curve():
    """The mean NDVI of a crop peaks between its green-up and its senescence, and is low outside."""
    found = scene(cloud_share=0.0, variation=0.0, scene_size=144, dates=50)
    assert found.clear.all()
    red, nir = (found.pixels[:, BANDS.index(band)].astype(float) for band in ("B04", "B08"))
    ndvi = (nir - red) / (nir + red)
    for k, crop in enumerate(CROPS[: SMALL.crops], start=1):
        inside = found.labels == k
        if inside.sum() < 100:
            continue
        curve = np.median(ndvi[:, inside], axis=1)
        season = found.days / SMALL.season_days
        growing = (season > crop.green_up + 0.06) & (season < crop.senescence - 0.06)
        bare = (season < crop.green_up - 0.12) | (season > crop.senescence + 0.12)
        assert curve[growing].min() > 0.5
        assert not bare.any() or curve[bare].max() < 0.45


def test_clouds_have_the_wanted_share_and_are_marked():
    shares = [1 - scene(cloud_share=share, dates=55).clear.mean() for share in (0.0, 0.2, 0.6)]
    assert shares[0] == 0
    assert shares[0] < shares[1] < shares[2]
    cloudy = scene(cloud_share=0.5, dates=55)
    # A bright pixel in a patch marked clear would be a lie: fields stay well below clouds in the blue band.
    clear = cloudy.clear.repeat(2, 1).repeat(2, 2).astype(bool)
    assert cloudy.pixels[:, 0][clear].max() < 3000
    assert np.quantile(cloudy.pixels[:, 0][~clear], 0.9) > 4000


@pytest.mark.parametrize(("size", "crops"), [(24, 1), (50, 18)])
def test_any_size_and_class_count(size, crops):
    found = scene(scene_size=size, crops=crops)
    assert found.labels.shape == (size, size)


def test_background_and_void_shares():
    found = scene(background_share=0.5, void_share=0.2, scene_size=240, dates=2)
    assert 0.3 < (found.labels == 0).mean() < 0.65
    assert 0.08 < (found.labels == VOID).mean() < 0.35
