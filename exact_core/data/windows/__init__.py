"""The window dataset: written, read, cut, combined and batched."""
