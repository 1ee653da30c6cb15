"""Adapters that carry publications between the instances of an application."""
