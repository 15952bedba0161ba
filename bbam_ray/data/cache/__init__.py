"""Decoded images and tokenised texts on disk, written once and shared by all processes of a node.

``row_file.py`` is the file format; ``folder.py`` is the cache folder itself."""
