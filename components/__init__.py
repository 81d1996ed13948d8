"""The KFP adapters: one component a stage, each a signature and a call of `exact_core.stages`."""
