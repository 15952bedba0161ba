"""Fetching and unpacking published data sets: resumable, checked, safe against hostile archives.

``sources.py`` lists what can be downloaded; the rest knows no data set."""
