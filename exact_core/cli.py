"""The old address of the command line: `python -m exact_core.cli`, as scripts of version 0.1.0 have it."""

import runpy

if __name__ == "__main__":
    # By name and not by import: the library knows nothing of what is built on it.
    runpy.run_module("exact_kubeflow.cli", run_name="__main__", alter_sys=True)
