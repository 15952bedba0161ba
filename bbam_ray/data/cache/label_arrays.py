"""Labels that take long to parse, as a small file of arrays in the cache."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np

from bbam_ray.data.cache.folder import cache_dir, whole_file
from bbam_ray.data.formats.npz import open_arrays, read_array


def cached_arrays(
    name: str, key: str, make: Callable[[], dict[str, np.ndarray]], arrays: tuple[str, ...]
) -> dict[str, np.ndarray]:
    """Arrays that are made at the first call only, or again if their file is damaged.

    Args:
        name: of the data set.
        key: changes with everything that the arrays depend on.
        make: the arrays by name, none of them of objects.
        arrays: their names.
    """
    digest = hashlib.sha256(key.encode()).hexdigest()[:20]
    path = cache_dir() / name / f"{digest}-labels.npz"
    try:
        with open_arrays(path) as archive:
            return {array: read_array(archive, array) for array in arrays}
    except ValueError:  # missing or damaged
        made = make()
    with whole_file(path) as temporary, temporary.open("wb") as handle:
        np.savez(handle, **made)  # type: ignore[arg-type]
    return made
