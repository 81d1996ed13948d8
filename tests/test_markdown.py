"""Names of classes that would be Markdown."""

import pytest

from exact_core.markdown import as_markdown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("winter wheat", "winter wheat"),
        ("a | b", r"a \| b"),
        ("sugar_beet *", r"sugar\_beet \*"),
        ("<script>&", "&lt;script&gt;&amp;"),
        ("[x](http://h)", r"\[x\](http://h)"),
        ("two\nlines", "two lines"),
        ("\\|", r"\\\|"),
    ],
)
def test_by_hand(text, shown):
    assert as_markdown(text) == shown
