"""KFP component of the stage `transfer_report`."""
