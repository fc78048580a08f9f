"""Structured output over the bytes of a vocabulary: what is asked for as a grammar (`spec`,
`schema`, `tags`), a checkpoint's tokenizer as bytes (`vocabulary`), and masks (`compiled`)."""
