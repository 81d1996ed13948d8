"""KFP component of the stage `gather_seasons`."""
