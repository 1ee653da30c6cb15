"""What jararaca_ws claims about speed and memory, measured beside its peers: `scripts/bench`."""
