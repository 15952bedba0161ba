"""Scaling: Ray Tune and Optuna. The only folder that imports either."""
