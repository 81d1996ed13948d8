"""KFP components. Each one is a signature and a call of one function of `exact_core.stages`."""
