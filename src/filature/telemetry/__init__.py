"""What is told about requests: usage records, metrics and log lines. Nothing here decides anything."""
