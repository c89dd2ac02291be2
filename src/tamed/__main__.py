"""``python -m tamed`` is the command ``tamed``."""

import sys

if not sys.flags.safe_path:
    # The current folder, which Python puts there for `-m`: nothing is imported from it unasked.
    del sys.path[0]

from tamed.cli.main import main

main()
