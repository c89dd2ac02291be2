"""The network: endpoints, sockets, servers, clients, TLS."""
