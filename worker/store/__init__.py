"""SQL: tables, moves, and the functions over them. Synchronous, lists in, lists out."""
