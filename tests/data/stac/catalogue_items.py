"""Items of Sentinel-2 L2A as public catalogues state them: names of properties and assets from their documentation.

Values are made up: a tile of zone 33 on one day, all of 10980 x 10980 pixels at 10 m.
"""

from __future__ import annotations

from typing import Any

BANDS = ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12")
COMMON = ("blue", "green", "red", "rededge1", "rededge2", "rededge3", "nir", "nir08", "swir16", "swir22")
PRODUCT = "S2A_MSIL2A_20230610T094041_N0509_R036_T33PVQ_20230610T141500"
OUTLINE = {"type": "Polygon", "coordinates": [[[14.1, 13.5], [15.1, 13.5], [15.1, 14.5], [14.1, 14.5], [14.1, 13.5]]]}
COG = "image/tiff; application=geotiff; profile=cloud-optimized"


def metres(band: str) -> int:
    """The finest resolution of a band."""
    return 10 if band in ("B02", "B03", "B04", "B08") else 20


def grid(resolution: int) -> dict[str, Any]:
    """Where an asset of this resolution lies."""
    side = 109_800 // resolution
    return {"proj:shape": [side, side], "proj:transform": [resolution, 0, 399_960, 0, -resolution, 1_600_020]}


def _item(identity: str, version: str, properties: dict[str, Any], assets: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "Feature",
        "stac_version": version,
        "id": identity,
        "geometry": OUTLINE,
        "bbox": [14.1, 13.5, 15.1, 14.5],
        "properties": {"datetime": "2023-06-10T09:40:41.024000Z", "eo:cloud_cover": 12.5, **properties},
        "links": [],
        "assets": assets,
    }


def planetary_computer() -> dict[str, Any]:
    """Bands by their names, beside previews; the baseline alone says that the offset is in."""
    assets: dict[str, Any] = {
        band: {
            "href": f"https://store.example.org/sentinel2-l2/{PRODUCT}/{band}_{metres(band)}m.tif",
            "type": COG,
            "gsd": metres(band),
            "eo:bands": [{"name": band, "common_name": common, "center_wavelength": 0.5}],
            **grid(metres(band)),
        }
        for band, common in zip(BANDS, COMMON, strict=True)
    }
    for extra in ("AOT", "WVP", "SCL"):
        assets[extra] = {"href": f"https://store.example.org/{PRODUCT}/{extra}_20m.tif", "type": COG, **grid(20)}
    visual = [
        {"name": name, "common_name": common} for name, common in (("B04", "red"), ("B03", "green"), ("B02", "blue"))
    ]
    assets["visual"] = {"href": f"https://store.example.org/{PRODUCT}/TCI_10m.tif", "type": COG, "eo:bands": visual}
    properties = {
        "platform": "Sentinel-2A",
        "proj:epsg": 32633,
        "s2:mgrs_tile": "33PVQ",
        "s2:product_uri": f"{PRODUCT}.SAFE",
        "s2:product_type": "S2MSI2A",
        "s2:processing_baseline": "05.09",
        "s2:datastrip_id": "S2A_OPER_MSI_L2A_DS_2APS_20230610T141500_S20230610T095020_N05.09",
        "s2:nodata_pixel_percentage": 3.2,
        "s2:generation_time": "2023-06-10T14:15:00.000000Z",
    }
    return _item("S2A_MSIL2A_20230610T094041_R036_T33PVQ_20230610T161122", "1.0.0", properties, assets)


def earth_search() -> dict[str, Any]:
    """Bands by colour, each as GeoTIFF and as JPEG 2000; an offset of -0.1 is listed, and said to be off."""
    assets: dict[str, Any] = {}
    for band, common in zip((*BANDS, "SCL"), (*COMMON, "scl"), strict=True):
        raster = {"nodata": 0, "data_type": "uint16", "spatial_resolution": metres(band)}
        if band != "SCL":
            raster |= {"scale": 0.0001, "offset": -0.1}
        fields = {"eo:bands": [{"name": common, "common_name": common}], "raster:bands": [raster], **grid(metres(band))}
        assets[common] = {"href": f"https://cogs.example.org/33/P/VQ/{band}.tif", "type": COG, **fields}
        assets[f"{common}-jp2"] = {"href": f"s3://sentinel-s2-l2a/{band}.jp2", "type": "image/jp2", **fields}
    properties = {
        "platform": "sentinel-2a",
        "proj:epsg": 32633,
        "grid:code": "MGRS-33PVQ",
        "s2:product_uri": f"{PRODUCT}.SAFE",
        "s2:processing_baseline": "05.09",
        "s2:datastrip_id": "S2A_OPER_MSI_L2A_DS_2APS_20230610T141500_S20230610T095020_N05.09",
        "s2:nodata_pixel_percentage": 3.2,
        "earthsearch:boa_offset_applied": True,
        "updated": "2023-06-10T20:01:02.000Z",
    }
    return _item("S2A_33PVQ_20230610_0_L2A", "1.0.0", properties, assets)


def data_space() -> dict[str, Any]:
    """STAC 1.1: each band in all resolutions that the product has; scale and offset on the asset."""
    assets: dict[str, Any] = {}
    for band, common in zip(BANDS, COMMON, strict=True):
        for resolution in (each for each in (10, 20, 60) if each >= metres(band)):
            path = f"eodata/Sentinel-2/MSI/L2A/2023/06/10/{PRODUCT}.SAFE/T33PVQ_{band}_{resolution}m.jp2"
            assets[f"{band}_{resolution}m"] = {
                "href": f"s3://{path}",
                "type": "image/jp2",
                "alternate": {"https": {"href": f"https://zipper.example.org/{path}"}},
                "bands": [{"name": band, "eo:common_name": common}],
                "data_type": "uint16",
                "nodata": 0,
                "gsd": resolution,
                "raster:scale": 0.0001,
                "raster:offset": -0.1,
                "proj:code": "EPSG:32633",
                **grid(resolution),
            }
    for resolution in (20, 60):
        path = f"eodata/{PRODUCT}.SAFE/T33PVQ_SCL_{resolution}m.jp2"
        href = {"href": f"s3://{path}", "alternate": {"https": {"href": f"https://zipper.example.org/{path}"}}}
        assets[f"SCL_{resolution}m"] = {**href, "type": "image/jp2", "gsd": resolution, **grid(resolution)}
    properties = {
        "platform": "sentinel-2a",
        "grid:code": "MGRS-33PVQ",
        "product:type": "S2MSI2A",
        "processing:version": "05.09",
        "processing:datetime": "2023-06-10T14:15:00Z",
        "proj:code": "EPSG:32633",
        "updated": "2023-06-10T20:01:02Z",
    }
    return _item(PRODUCT, "1.1.0", properties, assets)


def earth_africa() -> dict[str, Any]:
    """Bands by their names; properties under `sentinel:`, and the offset said to be off."""
    assets: dict[str, Any] = {
        band: {
            "href": f"https://deafrica.example.org/sentinel-s2-l2a-cogs/33/P/VQ/2023/6/{band}.tif",
            "type": COG,
            "roles": ["data"],
            "eo:bands": [{"name": band, "common_name": common}],
            **grid(metres(band)),
        }
        for band, common in zip(BANDS, COMMON, strict=True)
    }
    assets["SCL"] = {"href": "https://deafrica.example.org/sentinel-s2-l2a-cogs/SCL.tif", "type": COG, **grid(20)}
    properties = {
        "platform": "sentinel-2a",
        "proj:epsg": 32633,
        "odc:product": "s2_l2a",
        "odc:region_code": "33PVQ",
        "sentinel:utm_zone": 33,
        "sentinel:latitude_band": "P",
        "sentinel:grid_square": "VQ",
        "sentinel:sequence": "0",
        "sentinel:product_id": PRODUCT,
        "sentinel:processing_baseline": "05.09",
        "sentinel:boa_offset_applied": True,
        "sentinel:valid_cloud_cover": True,
    }
    return _item("S2A_33PVQ_20230610_0_L2A", "1.0.0", properties, assets)


def eopf() -> dict[str, Any]:
    """Samples of ESA's new format: one Zarr store, an asset a resolution."""
    store = f"https://objects.example.org/eopf/cpm_v256/{PRODUCT}.zarr"
    assets: dict[str, Any] = {
        f"SR_{resolution}m": {
            "href": f"{store}/measurements/reflectance/r{resolution}m",
            "type": "application/vnd+zarr",
            "roles": ["data", "reflectance", "dataset"],
            "gsd": resolution,
            "bands": [{"name": band, "eo:common_name": common} for band, common in zip(BANDS, COMMON, strict=True)],
            "raster:scale": 0.0001,
            "raster:offset": -0.1,
        }
        for resolution in (10, 20, 60)
    }
    assets["product"] = {"href": store, "type": "application/vnd+zarr", "roles": ["data", "metadata"]}
    properties = {
        "platform": "sentinel-2a",
        "grid:code": "MGRS-33PVQ",
        "proj:code": "EPSG:32633",
        "processing:version": "05.09",
    }
    return _item(PRODUCT, "1.1.0", properties, assets)
