"""The engine's claims, one script each; `python -m benchmarks.engine.NAME --help`."""
