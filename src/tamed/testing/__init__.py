"""What tests of services need, ours and users'."""
