"""Files for other programs that agree with a deployment: units, manifests, images, a schema."""
