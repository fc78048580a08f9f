"""Native kernels, by kind of device; each has a plain-torch twin with the same signature."""
