"""Commands as a person types them, in this process."""

import sys

import pytest

from exact_kubeflow.cli.app import main


def exact(capsys, *arguments):
    """Exit code, output and errors of a command."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["exact", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
    said = capsys.readouterr()
    return ended.value.code or 0, said.out, said.err
