"""Trains a classifier from a labelled CSV: `python jobs/train.py --recipe FILE --out DIR`.

The same as `textcls train`, in a checkout that need not be installed.
"""

import sys
from pathlib import Path

# `python jobs/train.py` puts jobs/ on sys.path, not the root of the checkout.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from textcls.commands.train import main

if __name__ == "__main__":
    sys.exit(main())
