"""One server per system, each with WebSockets at /ws and the control socket of `control.py`."""
