"""Comparisons that print a table; each peer is measured in the same run."""
