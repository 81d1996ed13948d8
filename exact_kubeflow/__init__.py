"""Exact on Kubeflow: the components, the pipelines and the command line."""
