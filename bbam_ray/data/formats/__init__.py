"""Readers of user files: tables, labels, features, ARFF and Mulan, images; and the encoding of texts.

They turn files into arrays, names and labels, and know no data set.
"""
