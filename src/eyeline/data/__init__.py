"""Annotated pictures: formats, data sets, transforms, the loader, the sample data."""
