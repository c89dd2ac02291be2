"""Files for other programs, made from a deployment: units, manifests, images, a schema."""
