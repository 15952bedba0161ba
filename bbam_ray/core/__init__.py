"""The mathematics of S2ML2-BBAM in plain torch: no Ray, no Optuna, no data code.

Here belong pure functions and small objects that take this rank's rows and return the result for the
rows of all ranks. Code that reads data, holds a configuration or runs a loop belongs elsewhere.

Shape letters: N samples, B batch, K labels, D features. A leading axis of size 2 is the polarity:
0 = negative, 1 = positive. Labels are 0 or 1; a mask is a boolean tensor of its own.

Sources: the paper [S2ML2-BBAM](https://openreview.net/forum?id=AqcPvWwktK) (NeurIPS 2024), and
docs/method.md, which states how this project implements it.
"""
