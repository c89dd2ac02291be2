"""The lowest layer: system calls, and text helpers, that several folders use."""
