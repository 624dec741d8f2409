"""Measures a bundle by a labelled CSV: `python jobs/evaluate.py --bundle DIR --csv FILE --out DIR`.

The same as `textcls evaluate`, from a checkout that need not be installed.
"""

import sys
from pathlib import Path

# `python jobs/evaluate.py` puts jobs/ on the path, not the checkout it lies in.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from textcls.commands.evaluate import main

if __name__ == "__main__":
    sys.exit(main())
