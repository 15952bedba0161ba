"""Training, evaluation, checkpoints and trained models in plain torch.

Here belongs what runs a method in one process or on the ranks of a process group, and what reads and
writes the result. The package imports neither Ray nor Optuna; ``scale/`` does.
"""
