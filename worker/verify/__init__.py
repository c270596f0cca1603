"""`afterword verify`: rules that every row must keep."""
