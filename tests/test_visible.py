"""A stranger's text made visible in JSON that a page shows."""

import json

from hypothesis import given
from hypothesis import strategies as st

from inna_tune.visible import shown_by_json, visible

TEXTS = st.text(
    st.sampled_from("a\\\"'u2028eé\n\t\r\b\f\x00\x1b\x7f\x9b\u202e\u200d\u2066\ufeff\u2028\U000e0041😀\ud800")
)
TREES = st.recursive(
    TEXTS | st.integers() | st.booleans() | st.none(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=10,
)


def walked(tree):
    if isinstance(tree, str):
        return visible(tree, lines=True)
    if isinstance(tree, list):
        return [walked(part) for part in tree]
    if isinstance(tree, dict):
        return {walked(name): walked(part) for name, part in tree.items()}
    return tree


@given(TREES, st.booleans(), st.sampled_from([None, 2]))
def test_json_says_what_visible_makes_of_each_text(tree, is_ascii, indent):
    text = shown_by_json(json.dumps(tree, ensure_ascii=is_ascii, indent=indent))
    assert json.loads(text) == walked(tree)
    assert shown_by_json(text) == text
