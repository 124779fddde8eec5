"""The data plane: HTTP/1.1 on asyncio protocols, from the client's socket to the engine's and back."""
