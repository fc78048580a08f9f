"""What the engine did, as metrics: told of events, asked for text. Knows no HTTP and no torch."""
