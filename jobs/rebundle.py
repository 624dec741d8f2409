"""Makes a bundle with another text.on_long: `python jobs/rebundle.py --bundle DIR --set K=V --csv FILE --out DIR`.

The same as `textcls rebundle`, in a checkout that need not be installed.
"""

import sys
from pathlib import Path

# `python jobs/rebundle.py` puts jobs/ on sys.path, not the root of the checkout.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from textcls.commands.rebundle import main

if __name__ == "__main__":
    sys.exit(main())
