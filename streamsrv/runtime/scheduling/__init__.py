"""How a window engine's time is shared out: pure policy, and the threads that carry it out."""
