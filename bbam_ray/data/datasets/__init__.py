"""One file per data set, and the three bases they share (rows, images, texts).

Each knows its files, its label names and its settings; how a file format is read is in ``formats/``."""
