"""The pipelines, their compiler and their local runner."""
