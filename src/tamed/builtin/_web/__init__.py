"""The web: an application and files, and the HTTP/1.1 protocol that serves them."""
