"""No silent gap: where each room's history stands here, how missed messages are healed, how clients come back."""
