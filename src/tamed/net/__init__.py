"""Where it listens: endpoints, sockets, servers, clients, TLS."""
