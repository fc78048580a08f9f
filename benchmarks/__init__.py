"""Comparisons with peers and with the hardware's limits; results stand in `results/`."""
