"""KFP component of the stage `preflight`."""
