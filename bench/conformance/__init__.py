"""What other servers' own tests say of Tamed: `make conformance` runs them."""
