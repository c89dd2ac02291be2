"""The parts of a Unix daemon: detaching, pid files, privileges, processes. All are synchronous."""
