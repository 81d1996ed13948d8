"""KFP component of the stage `resolve_season`."""
