"""KFP component of the stage `plan_seasons`."""
