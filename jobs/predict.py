"""Predicts every row of a CSV with a bundle: `python jobs/predict.py --bundle DIR --csv FILE --out DIR`.

The same as `textcls predict`, in a checkout that need not be installed.
"""

import sys
from pathlib import Path

# `python jobs/predict.py` puts jobs/ on sys.path, not the root of the checkout.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from textcls.commands.predict import main

if __name__ == "__main__":
    sys.exit(main())
