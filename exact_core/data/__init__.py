"""What a window is, and where windows come from.

    windows/      the dataset of windows: its files, reading and writing it, batches, series, samples
    season/       a Sentinel-2 season on disk: images, clouds, labels, and its windows
    stac/         fetching a season from a STAC API
    pastis/       PASTIS
    germany/      the Germany dataset (MTLCC)
    synthetic.py  a generated season, whose right answer is known

Sources write windows. What reads windows knows no source.
"""
