"""Rendered manifests run as processes of this machine: pods in namespaces of their own, started as the operator does."""
