"""The Ray cluster around a study: connection, free resources, scratch folders, diagnosis.

It does not depend on what is trained."""
