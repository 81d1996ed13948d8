"""KFP component of the stage `train_classifier`."""
