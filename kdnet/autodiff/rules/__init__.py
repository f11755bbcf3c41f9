"""Gradient rules, a file a family; every module here is imported when the table is first used."""
