"""Every kind of file that we write and read: no changed byte passes its reader."""

import pytest

from benchmarks.byte_flips import flip, kinds

pytestmark = pytest.mark.slow


def test_no_flip_passes(tmp_path):
    seen = []
    for kind in kinds(tmp_path):
        assert flip(kind, tries=3 * len(kind.files), seed=0) == [], kind.name
        seen.append(kind.name)
    assert len(seen) == 9
