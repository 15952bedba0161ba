"""The processes that train: gangs of actors for trials, Ray Train for long runs, heartbeats.

A worker knows its run and its rank, but not its study."""
