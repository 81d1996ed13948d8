"""What a window is, and where windows come from."""
