"""Catalogue to index: read products, embed their titles, build and publish a searchable snapshot."""
