"""Every name on the wire. registry.yaml is the source; the modules hold its constants."""
