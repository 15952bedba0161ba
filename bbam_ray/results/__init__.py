"""The files of a study: schemas, tables, ``study.json``, repair, and the copy on object storage.

Write with ``store.py`` and ``study.py``, read with ``loading.py``. Imports neither torch nor Ray."""
