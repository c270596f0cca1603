"""The request to a receiver and the guard of its address."""
