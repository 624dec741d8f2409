"""Evaluates a bundle on a labelled CSV: `python jobs/evaluate.py --bundle DIR --csv FILE --out DIR`.

The same as `textcls evaluate`, in a checkout that need not be installed.
"""

import sys
from pathlib import Path

# `python jobs/evaluate.py` puts jobs/ on sys.path, not the root of the checkout.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from textcls.commands.evaluate import main

if __name__ == "__main__":
    sys.exit(main())
