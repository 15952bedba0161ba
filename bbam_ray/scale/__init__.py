"""Scaling with Ray Tune, Ray Train and Optuna: the only folder that imports any of them.

``search/`` decides what to try, ``workers/`` train it on a ``cluster/``, and ``study/`` joins them.
"""
