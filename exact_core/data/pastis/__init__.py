"""PASTIS, the paper's first dataset."""
