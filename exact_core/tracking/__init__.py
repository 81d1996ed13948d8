"""Runs, registered models and evaluated maps in MLflow."""
