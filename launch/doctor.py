"""Check a machine or a cluster: ``python launch/doctor.py`` is the same program as ``bbam-ray doctor``."""

import sys

from bbam_ray.cli.main import main

if __name__ == "__main__":
    main(["doctor", *sys.argv[1:]])
