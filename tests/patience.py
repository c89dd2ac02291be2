"""How long tests wait for what must come, and how often they do what may fail by chance."""

import os

# Seconds. A deadline in a test is there for a hang: this is far more than anything takes that works, also on
# a machine that has eight times more to do than it can. The `timeout` of pytest, which tells less, is longer.
PATIENCE = 150.0

# Of what is done under load, again and again: one finds what is always wrong, and `make test-long` does more.
ROUNDS = int(os.environ.get("TAMED_TEST_ROUNDS", "1"))
