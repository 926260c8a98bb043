"""What every stage needs to be run: files, progress, lineage, bundles and the registry."""
