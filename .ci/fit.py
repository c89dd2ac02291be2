"""Say whether the Python that runs this can set up the project; exit 1 and say why if it cannot.

Written so that every Python 3 can read it, and Python 2 too.
"""

import sys

if sys.version_info < (3, 11):
    sys.exit("tamed needs Python 3.11 or later; {0} is {1}.{2}".format(sys.executable, *sys.version_info))

try:
    import ensurepip  # noqa: F401  Debian takes it out of Python and calls it python3-venv
    import venv  # noqa: F401
except ImportError:
    sys.exit(
        "{0} cannot make virtual environments; on Debian: apt install python3-venv".format(sys.executable)
    )
