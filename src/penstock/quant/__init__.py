"""Formats of weights: how a linear layer's matrix is stored, and how it is multiplied."""
