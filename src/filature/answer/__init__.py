"""An answer on its way back: post-processing, usage, pricing. Sans-I/O."""
