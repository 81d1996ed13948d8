"""One loop for both models, and what it needs."""
