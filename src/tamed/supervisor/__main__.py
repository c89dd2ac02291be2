"""The supervisor as a program: see `tamed.supervisor.program`."""

from tamed.supervisor.program import main

if __name__ == "__main__":
    main()
