"""The worker: dials proxies, answers what they send by its own engine, reports what it metered."""
