"""One file an engine. Each runs in that engine's own environment, where nothing but the standard
library, the engine and this package may be imported."""
