"""Cluster roles: engines that grant them across machines, and the campaign for one."""
