"""The parts of the outbox: what is told, how long one waits, and the relay of one sink."""
