"""Storage: files that are whole at any moment, and what a result depends on."""
