"""Reports: metrics and charts of a run, a preview of data, a comparison of models."""
