"""KFP component of the stage `ingest`."""
