"""Exact: from image-level crop tags and a Sentinel-2 season to a crop map (Zhu et al., CVPR 2025)."""

__version__ = "0.1.0"
