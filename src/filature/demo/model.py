"""The model back end: not yet."""


class ModelBackend:
    """Not yet."""
