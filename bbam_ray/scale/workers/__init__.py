"""The processes that train: gangs of actors for trials, Ray Train for long runs, heartbeats.

A worker knows its run and its rank, not the study that it is part of."""
