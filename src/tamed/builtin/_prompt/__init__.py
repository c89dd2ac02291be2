"""A Python prompt into the running process, for the plugins that let somebody type into it."""
