"""How much a client may do: how often, and how many connections there may be."""
