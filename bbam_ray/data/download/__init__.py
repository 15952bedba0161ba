"""Downloading and unpacking published data sets: resumable, verified, safe against malicious archives.

``sources.py`` starts it by name; what is downloaded is described by each data set.
"""
