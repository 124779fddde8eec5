"""Whether workers claim what they delivered: samples of answers are counted again, off the hot path."""
