"""The bridge to Twisted: its services in Tamed's applications, Tamed's under Twisted's, and its programs."""
