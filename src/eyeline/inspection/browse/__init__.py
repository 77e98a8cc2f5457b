"""Annotated pictures to look at: contact sheets, a page to browse, what a network is fed."""
