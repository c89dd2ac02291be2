"""Roles that run once in a fleet: engines that grant them across machines, and the campaign for one."""
