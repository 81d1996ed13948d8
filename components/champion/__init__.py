"""KFP component of the stage `champion`."""
