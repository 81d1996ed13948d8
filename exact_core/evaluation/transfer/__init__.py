"""Whether a model trained on one season holds on another."""
