"""KFP component of the stage `season_table`."""
