"""The control plane, on its own port: metrics, health, and the operator's API over a store."""
