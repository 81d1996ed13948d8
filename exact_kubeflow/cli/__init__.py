"""The command line, `exact`."""

from exact_kubeflow.cli.app import main

__all__ = ["main"]
