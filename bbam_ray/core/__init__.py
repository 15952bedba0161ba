"""The mathematics of S2ML2-BBAM in plain torch: no Ray, no Optuna, no data code.

Shape suffixes: N samples, B batch, K labels, D features. A leading axis of size 2 is the polarity:
0 = negative, 1 = positive.
"""
