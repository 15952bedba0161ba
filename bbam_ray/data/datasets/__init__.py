"""One file per data set, and the bases they share: ``base`` (all), ``image_base``, ``text_base``.

A data set knows its files, labels, settings and download; how a file format is read is in ``formats/``.
"""
