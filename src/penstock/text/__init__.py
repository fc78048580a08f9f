"""Text above the engine: tokenizer, chat templates, detokenizer, sampling parameters, outputs."""
