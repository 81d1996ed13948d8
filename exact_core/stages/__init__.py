"""The stages: each takes a configuration, input folders, an output folder and a tracker, and returns its figures.

One module a stage; they are the only thing that components and the command line call, each by its own module, because
those that only read images run in an image without torch. What they share:

    frame.py       the frame of a stage: log, tracked run, settings, duration
    handover.py    folders between stages: as they are, or by way of a store
    models.py      models as folders, and checkpoints of their training
"""
