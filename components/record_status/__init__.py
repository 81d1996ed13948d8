"""KFP component of the stage `record_status`."""
