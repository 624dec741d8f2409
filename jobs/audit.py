"""Ranks labelled rows by how probably their labels are wrong: `python jobs/audit.py --recipe FILE --out DIR`.

The same as `textcls audit`, in a checkout that need not be installed.
"""

import sys
from pathlib import Path

# `python jobs/audit.py` puts jobs/ on sys.path, not the root of the checkout.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from textcls.commands.audit import main

if __name__ == "__main__":
    sys.exit(main())
