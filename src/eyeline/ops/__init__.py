"""Pure tensor functions: boxes, overlaps, anchors, matching, suppression, regions."""
