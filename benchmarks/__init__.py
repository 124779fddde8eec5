"""Measures the relay beside nginx, in CPU time per unit of work; holds no test and asserts nothing.

``python -m benchmarks`` (``make bench``) prints the table of targets. ``docs/performance.md`` says how it is measured.
"""
