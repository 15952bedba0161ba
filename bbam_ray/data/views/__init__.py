"""Weak and strong views: random augmentation of images, features and texts.

The random numbers belong to a sample's position in the epoch, not to the process that draws them.
"""
