"""Comparisons that print a table; the compared programs are measured in the same run."""
