"""`torchrun -m exact_kubeflow.cli` starts training this way."""

from exact_kubeflow.cli.app import main

main()
