"""Claims of papers put on trial: the published figure measured again, and what controls say of it."""
