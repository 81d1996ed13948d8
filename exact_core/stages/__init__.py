"""The stages: each takes a configuration, input folders, an output folder and a tracker, and returns its metrics.

Each stage is one module. Components and the command line call nothing else, and import each module by itself, because
stages that only read images run in a container image without torch. `lifecycle.py` is no stage. It starts and ends
every stage. `exact_core.artifacts` has the folders between stages, and models as folders.
"""
