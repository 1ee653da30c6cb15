"""One accepted socket: its state, its bounded queues, and the writes at the end of each turn of the event loop."""
