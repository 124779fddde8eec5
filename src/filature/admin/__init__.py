"""The control plane, on its own port: metrics and health now, the operator's API later."""
