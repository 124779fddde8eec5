"""How each dialect writes an answer: vLLM's wire format."""
