"""Layers that carry the member axis, and the tabular net built of them. Knows torch only."""
