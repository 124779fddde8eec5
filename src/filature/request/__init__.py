"""A request on its way in: validation, rewriting, what its prompt measures. Sans-I/O."""
