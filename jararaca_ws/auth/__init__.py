"""Who a client is, where it comes from, and until when."""
