"""Weak and strong views: random augmentation of images and of texts.

The randomness belongs to a sample's position in the epoch, not to the process that draws it."""
