"""``python -m tamed`` is the command ``tamed``."""

from tamed.cli import main

main()
