"""What goes over the wire, both ways. The only package that knows the keys of envelopes."""
