"""Parts that several commands share: lazy groups, options, times, exit codes, output, the database, the filter."""
