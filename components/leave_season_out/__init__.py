"""KFP component of the stage `leave_season_out`."""
