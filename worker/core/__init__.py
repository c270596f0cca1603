"""Decides: pure functions over plain values. No I/O, no clock, no chance, nothing but the standard library."""
