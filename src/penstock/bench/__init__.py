"""Load against any OpenAI-style server, as its clients see it. Never reaches torch."""
