"""Benchmarks: each command measures, stores the results and writes a table into a Markdown page."""
