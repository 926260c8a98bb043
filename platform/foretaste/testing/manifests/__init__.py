"""What manifests have to keep before anybody applies them, checked without a cluster."""
