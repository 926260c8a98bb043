"""The command line: `foretaste VERB`."""
