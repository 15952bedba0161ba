"""Inputs of ``bbam-ray predict``: folders and files of new samples, read in chunks.

Nothing here needs labels or splits.
"""
