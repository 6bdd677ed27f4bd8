"""Stateless geometry: boxes, non-maximum suppression, masks, contours. Import what you need from the module itself."""
