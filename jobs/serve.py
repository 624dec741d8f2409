"""Serves a bundle over HTTP on this machine: `python jobs/serve.py --bundle URI`.

The same as `textcls serve`, in a checkout that need not be installed.
"""

import sys
from pathlib import Path

# `python jobs/serve.py` puts jobs/ on sys.path, not the root of the checkout.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from textcls.commands.serve import main

if __name__ == "__main__":
    sys.exit(main())
