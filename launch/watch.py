"""Show a running study: ``python launch/watch.py STUDY`` is the same program as ``bbam-ray watch``."""

import sys

from bbam_ray.cli.main import main

if __name__ == "__main__":
    main(["watch", *sys.argv[1:]])
