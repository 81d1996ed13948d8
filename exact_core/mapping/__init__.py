"""From windows to maps."""
