"""KFP component of the stage `map_season`."""
