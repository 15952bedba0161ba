"""The Ray cluster around a study: connection, free resources, scratch folders, diagnosis.

Nothing here knows what is trained."""
