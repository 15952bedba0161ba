"""Decoded images, tokenized texts and features on disk, written once for all processes of a node.

``row_file.py`` is the file format, ``folder.py`` the cache folder; nothing here knows a data set.
"""
