"""Rendered manifests run as processes of this machine: pods in namespaces, started as the operator starts them."""
