"""Trained networks as a page in the browser and an HTTP API."""
