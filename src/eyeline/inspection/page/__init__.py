"""The page of `eyeline explain`: what each section shows, its script and its style sheet."""
