"""Rank groups, sharding arithmetic, collectives. One rank is the default and costs nothing."""
