"""Penstock beside its peers on one CPU: the same weights, the same works, in turns."""
