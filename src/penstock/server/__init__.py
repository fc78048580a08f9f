"""The HTTP server: OpenAI-style routes over `AsyncLLM`. Called by `penstock serve`."""
