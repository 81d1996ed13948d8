"""KFP component of the stage `join_map`."""
