"""Formats: bytes to typed values and back. Sans-I/O."""
