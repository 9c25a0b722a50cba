"""Engines that search vectors or words, one adapter a file, each asked in a process of its own."""
