"""KFP component of the stage `plan_map`."""
