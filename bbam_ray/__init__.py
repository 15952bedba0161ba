"""Hyper-parameter search and scaling for semi-supervised multi-label learning with S2ML2-BBAM."""

__version__ = "0.1.0"
