"""The command ``tamed``: the only place that prints or exits."""
