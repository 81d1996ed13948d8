"""A style for QGIS beside the class raster: it opens class.tif with the crops' names and colours (QML of QGIS 3)."""

from __future__ import annotations

from pathlib import Path
from xml.sax.saxutils import quoteattr

from exact_core.files import publish_text
from exact_core.mapping.cogs import CLASS, MapRecord

__all__ = ["STYLE", "write_style"]

STYLE = f"{CLASS.removesuffix('.tif')}.qml"
"""QGIS takes the style of a raster from the file of its name that ends in .qml."""


def write_style(record: MapRecord, out: Path) -> None:
    """Write it into the folder of a map.

    Raises:
        ServiceError: it cannot be written.
    """
    entries = "\n".join(
        f'        <paletteEntry value="{label}" label={quoteattr(name)} color="{colour}" alpha="255"/>'
        for label, (name, colour) in enumerate(zip(record.names, record.colours, strict=True))
    )
    publish_text(
        out / STYLE,
        f"""<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>
<qgis version="3.22" styleCategories="Symbology">
  <pipe>
    <rasterrenderer type="paletted" band="1" opacity="1" alphaBand="-1" nodataColor="">
      <colorPalette>
{entries}
      </colorPalette>
    </rasterrenderer>
  </pipe>
</qgis>
""",
    )
