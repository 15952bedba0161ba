"""Scaling with Ray Tune, Ray Train and Optuna: the only folder that imports any of them.

``search/`` decides what is tried, ``workers/`` train it, ``cluster/`` is where they run, ``study/`` joins them.
"""
