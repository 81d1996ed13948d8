"""KFP component of the stage `train_segmenter`."""
