"""KFP component of the stage `promote`."""
