"""KFP component of the stage `generate_masks`."""
