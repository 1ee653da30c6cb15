"""What clients send: from a frame to its typed handler, one unit of work each."""
