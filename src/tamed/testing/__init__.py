"""Helpers for tests of services."""
