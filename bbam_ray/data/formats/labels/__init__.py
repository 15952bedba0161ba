"""Labels from users' tables: the form is determined for all tables together, then read strictly.

``reader`` is the way in. Forms: one 0/1 column per label (``zero_one``), or a single column whose cells
are lists, texts (``texts``) or objects (``objects``) of names, numbers or vectors of 0 and 1 (``items``).
"""
