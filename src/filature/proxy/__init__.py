"""The proxy role: its settings, its composition root and the routes it serves."""
