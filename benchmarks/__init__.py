"""Measurements that the README and the documents quote, each made from stored results by a command."""
