"""Manage data sets: ``python launch/data.py COMMAND`` is the same program as ``bbam-ray data COMMAND``."""

import sys

from bbam_ray.cli.main import main

if __name__ == "__main__":
    main(["data", *sys.argv[1:]])
