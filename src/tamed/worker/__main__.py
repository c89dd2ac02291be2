"""The program of a template, and of the workers that it forks: ``python -m tamed.worker NAME WORD``.

The word is ``template``, or the number of a worker. Name and word are only shown in process listings.
"""

from tamed.worker.template import main

if __name__ == "__main__":
    main()
