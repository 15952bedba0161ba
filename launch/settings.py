"""List the settings: ``python launch/settings.py`` is the same program as ``bbam-ray settings``."""

import sys

from bbam_ray.cli.main import main

if __name__ == "__main__":
    main(["settings", *sys.argv[1:]])
