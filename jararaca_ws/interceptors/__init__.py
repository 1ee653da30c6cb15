"""Code around a unit of work: one HTTP request, one bus message, one WebSocket."""
