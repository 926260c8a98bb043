"""The only batch wiring: each module is one verb of the command line and one Ray job."""
