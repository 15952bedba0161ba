"""Readers of file formats: label tables, feature files, ARFF and Mulan folders, lists of images.

They return plain arrays and names, and know no data set."""
