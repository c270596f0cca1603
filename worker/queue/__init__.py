"""Redis: the entries, connections and lists of the queues."""
