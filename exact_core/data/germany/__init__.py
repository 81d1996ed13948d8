"""Germany (MTLCC), the paper's second dataset."""
