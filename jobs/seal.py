"""Seals a bundle in one encrypted file: `python jobs/seal.py --bundle DIR --out FILE.age --encrypt-to age1...`.

The same as `textcls seal`, in a checkout that need not be installed.
"""

import sys
from pathlib import Path

# `python jobs/seal.py` puts jobs/ on sys.path, not the root of the checkout.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from textcls.commands.seal import main

if __name__ == "__main__":
    sys.exit(main())
