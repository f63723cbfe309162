"""Models in production: the resident predictor, vectors, exports, the HTTP service."""
