"""Importers of public data sets: each brings the files of one data set to the canonical tables."""
