"""The processes that keep programs: nothing of a program is left when it is over.

Three kinds of process take part::

    Tamed ── warden ── keeper ── program ── whatever it starts
                    └─ keeper ── program

The **warden** is a small process that Tamed starts once for each service, and that forks a keeper for each
program: a fork of a process with one thread and little memory is cheap and safe, which a fork of Tamed is
not. The **keeper** runs the program, and is the reaper of all that descends from it (PR_SET_CHILD_SUBREAPER,
prctl(2)): what a program leaves behind, a daemon in a session of its own too, becomes the keeper's child and
is ended by it. Between Tamed and each keeper is a channel. The end of the channel means "stop the program",
so a Tamed that is killed takes its programs along without having to do anything.

What is here runs in those processes, and needs nothing but the standard library; Tamed's side is in
``tamed.builtin.programs``.
"""

from tamed.builtin.keeper._program import Identity, Program

__all__ = ["Identity", "Program"]
