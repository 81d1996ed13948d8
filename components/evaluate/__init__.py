"""KFP component of the stage `evaluate`."""
