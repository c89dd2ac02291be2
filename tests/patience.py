"""How long tests wait for what must come."""

# Seconds. A deadline in a test is there for a hang: this is far more than anything takes that works, also on
# a machine that has eight times more to do than it can. The `timeout` of pytest, which tells less, is longer.
PATIENCE = 150.0
