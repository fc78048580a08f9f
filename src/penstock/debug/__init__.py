"""Cause from the logs alone: explain, statistics, prefixes, exports, replay, faults, the canary."""
