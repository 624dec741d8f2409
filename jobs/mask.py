"""Masks identifiers in CSV files: `python jobs/mask.py --csv FILE --mask email,phone --out DIR`.

The same as `textcls mask`, in a checkout that need not be installed.
"""

import sys
from pathlib import Path

# `python jobs/mask.py` puts jobs/ on sys.path, not the root of the checkout.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from textcls.commands.mask import main

if __name__ == "__main__":
    sys.exit(main())
