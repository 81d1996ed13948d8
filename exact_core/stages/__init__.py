"""The stages: each takes a configuration, input folders, an output folder and a tracker, and returns its figures.

One module a stage; they are the only thing that components and the command line call, each by its own module, because
those that only read images run in an image without torch. `lifecycle.py` is no stage: it is how every stage begins and
ends. Folders between stages, and models as folders, are `exact_core.artifacts`.
"""
