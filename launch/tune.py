"""Search: ``python launch/tune.py --dataset digits`` is the same program as ``bbam-ray tune``."""

import sys

from bbam_ray.cli.main import main

if __name__ == "__main__":
    main(["tune", *sys.argv[1:]])
