"""Decisions in plain data: no torch, no IO, no clock of its own, no randomness of its own."""
