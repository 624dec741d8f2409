"""Writes hashes of texts that trainings leave out: `python jobs/forget.py --recipe FILE --csv FILE --out FILE`.

The same as `textcls forget`, in a checkout that need not be installed.
"""

import sys
from pathlib import Path

# `python jobs/forget.py` puts jobs/ on sys.path, not the root of the checkout.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from textcls.commands.forget import main

if __name__ == "__main__":
    sys.exit(main())
