"""A season of Sentinel-2 L2A on disk: images, labels and tags, brought to one grid and cut into windows."""
