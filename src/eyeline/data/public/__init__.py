"""Public data sets by name: where they are, where they go, how they are fetched and unpacked."""
