"""Explains the predictions of rows of a CSV: `python jobs/explain.py --bundle DIR --csv FILE --out DIR`.

The same as `textcls explain`, in a checkout that need not be installed.
"""

import sys
from pathlib import Path

# `python jobs/explain.py` puts jobs/ on sys.path, not the root of the checkout.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from textcls.commands.explain import main

if __name__ == "__main__":
    sys.exit(main())
