"""``python -m filature`` is the command ``filature``."""

from filature.cli.main import app

app()
