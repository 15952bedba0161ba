"""Inputs of ``bbam-ray predict``: folders and files of new samples, read in pieces.

Nothing here needs labels or splits.
"""
